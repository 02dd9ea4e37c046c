"""Calibration.   Legend: N images, K classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnlab.figures.style import BLUE, LARGE, NOTE, QUIET, VERMILION, WIDTH, array_of, axes_at, canvas, text_at, thousands

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from torch import Tensor


def reliability(logits_NK: Tensor, labels_N: Tensor, *, path: Path, bins: int = 15) -> Path | None:
    """How often the network is right when it says it is: accuracy against confidence in equal bins, and how the confidences spread.

    ECE = sum over bins of (share of the images) * |accuracy - mean confidence|; confidence is the largest softmax probability (fp64), a bin
    holds (lower, upper]. Labels below 0 (OOD) are left out. None, and no file, without labelled images.
    """
    import numpy as np
    from matplotlib.ticker import NullLocator

    found = _binned(logits_NK, labels_N, bins)
    if found is None:
        return None
    side, right = 2.7, found.right
    with canvas(path, WIDTH, 3.7) as figure:
        _diagram(figure, 0.6, side, found, "reliability")
        left, width = 4.15, 3.6
        spread = axes_at(figure, left, 0.5, width, side, xlim=(0, 1), xlabel="confidence")
        text_at(figure, left, 0.13, "images by confidence", fontsize=LARGE, fontweight="bold")
        number = f"{thousands(len(right))} image{'s' * (len(right) != 1)}"
        text_at(figure, left + width, 0.15, number, fontsize=NOTE, color=QUIET, ha="right")
        for chosen, colour, word, height in ((right, BLUE, "right", 0.95), (~right, VERMILION, "wrong", 0.89)):
            counts, steps = np.histogram(found.confidence[chosen], 2 * bins, (0, 1))
            spread.stairs(counts, steps, fill=True, color=colour, alpha=0.25, linewidth=0)
            spread.stairs(counts, steps, color=colour, linewidth=1.2)
            mean = f", mean {found.confidence[chosen].mean():.3f}" if chosen.any() else ""
            shown = f"{word} {thousands(int(chosen.sum()))}{mean}"
            spread.text(0.03, height, shown, transform=spread.transAxes, color=colour, fontsize=NOTE, va="top")
        spread.set_yscale("symlog", linthresh=1)
        spread.set_ylim(0, 12 * max(10, found.count.max()))
        spread.yaxis.set_major_formatter(lambda value, _: thousands(round(value)))
        spread.yaxis.set_minor_locator(NullLocator())
    return Path(path)


def temperature_scaling(logits_NK: Tensor, labels_N: Tensor, temperature: float, *, path: Path, bins: int = 15) -> Path | None:
    """The reliability diagram before and after the logits are divided by `temperature`; see `reliability`."""
    before, after = (_binned(logits, labels_N, bins) for logits in (array_of(logits_NK), array_of(logits_NK) / temperature))
    if before is None or after is None:
        return None
    side = 2.7
    with canvas(path, WIDTH, 3.7) as figure:
        _diagram(figure, 0.6, side, before, "before, T = 1")
        _diagram(figure, 4.6, side, after, f"after, T = {temperature:.3g}")
    return Path(path)


@dataclass(frozen=True)
class _Binned:
    """confidence and right: of every image; count, accuracy, stated (mean confidence): of every bin; ece: of all."""

    confidence: np.ndarray
    right: np.ndarray
    count: np.ndarray
    accuracy: np.ndarray
    stated: np.ndarray
    ece: float


def _binned(logits_NK: Any, labels_N: Any, bins: int) -> _Binned | None:
    import numpy as np

    logits, labels = array_of(logits_NK), array_of(labels_N)
    keep = (labels >= 0) & np.isfinite(logits).all(1) if len(labels) else np.zeros(0, bool)
    if not keep.any():
        return None
    logits, labels = logits[keep], labels[keep]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    confidence, right = odds.max(1) / odds.sum(1), logits.argmax(1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    accuracy = np.bincount(place, right, bins) / np.maximum(count, 1)
    stated = np.bincount(place, confidence, bins) / np.maximum(count, 1)
    return _Binned(confidence, right, count, accuracy, stated, float((count * abs(accuracy - stated)).sum() / len(labels)))


def _diagram(figure: Figure, left: float, side: float, found: _Binned, title: str) -> None:
    """Accuracy against confidence, a bar a bin, the gap in vermilion."""
    import numpy as np

    bins = len(found.count)
    edges = np.linspace(0, 1, bins + 1)
    middle, used = (edges[1:] + edges[:-1]) / 2, found.count > 0
    axes = axes_at(figure, left, 0.5, side, side, xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
    text_at(figure, left, 0.13, title, fontsize=LARGE, fontweight="bold")
    text_at(figure, left + side, 0.15, f"ECE {found.ece:.3f}", fontsize=LARGE, ha="right")
    lower, upper = np.minimum(found.accuracy, found.stated)[used], np.maximum(found.accuracy, found.stated)[used]
    axes.bar(middle[used], lower, 0.92 / bins, color=BLUE, alpha=0.6, linewidth=0, zorder=2)
    axes.bar(middle[used], upper - lower, 0.92 / bins, bottom=lower, color=VERMILION, alpha=0.5, linewidth=0, zorder=2)
    axes.hlines(found.accuracy[used], edges[:-1][used], edges[1:][used], color=BLUE, linewidth=2, zorder=4)
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.9, linestyle=(0, (3, 2)), zorder=3)
    text_at(figure, left, 0.33, "accuracy", fontsize=NOTE, color=BLUE)  # above the axes: no bar is there
    text_at(figure, left + 0.62, 0.33, "gap to the confidence", fontsize=NOTE, color=VERMILION)
