"""OOD scores of every head as histograms, a row a data set."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnlab.figures.style import (
    BLUE,
    FAINT,
    INK,
    LARGE,
    NORMAL,
    NOTE,
    QUIET,
    SMALL,
    VERMILION,
    WIDTH,
    array_of,
    axes_at,
    canvas,
    fit,
    inches,
    text_at,
)

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from torch import Tensor


def score_histograms(
    scores: Mapping[str, Mapping[str, Tensor]],
    *,
    path: Path,
    auroc: Mapping[str, Mapping[str, float]] | None = None,
    test: str = "test",
) -> Path | None:
    """One panel a head, one row a data set: the OOD scores (filled) against those of the test set (`scores[head][test]`, outlined).

    Bins are shared within a head (of probabilities near 1 on a logit scale) and cover its test scores and what is near them; what lies
    beyond is counted in the outermost bins, and said.
    Each histogram is drawn to its own height. auroc[head][set] is written beside its row, their mean in the head's title. NaN scores are
    left out. None, and no file, where no head has scores of the test set.
    """
    import numpy as np
    from matplotlib.patches import StepPatch

    table = {head: {name: array_of(values).ravel() for name, values in sets.items()} for head, sets in scores.items()}
    table = {head: {name: values[~np.isnan(values)] for name, values in sets.items()} for head, sets in table.items()}
    table = {head: sets for head, sets in table.items() if len(sets.get(test, ()))}
    if not table:
        return None
    others = list(dict.fromkeys(name for sets in table.values() for name in sets if name != test))
    names = [test, *others]
    auroc = auroc or {}

    columns = min(len(table), 4 if len(table) != 5 else 3)
    rows, margin = math.ceil(len(table) / columns), 0.12
    labels = [fit(name, 1.35, NORMAL) for name in names]
    gutter = 0.12 + max(inches(label, NORMAL) for label in labels)
    numbers = 0.4 if any(auroc.get(head) for head in table) else 0.08
    band = min(0.55, max(0.25, 2.2 / len(names)))
    panel, panel_height = (WIDTH - 2 * margin - gutter - (columns - 1) * 0.12) / columns - numbers, band * len(names)
    above, below = 0.46, 0.42
    pitch = above + panel_height + below
    with canvas(path, WIDTH, margin + rows * pitch) as figure:
        for i, (head, sets) in enumerate(table.items()):
            left, top = margin + gutter + (i % columns) * (panel + numbers + 0.12), margin + above + (i // columns) * pitch
            stretched = _near_certain(sets[test])
            if stretched:
                sets = {name: _stretch(values) for name, values in sets.items()}
            edges = np.linspace(*_span(sets[test], [sets[name] for name in others if name in sets]), 61)
            axes = axes_at(figure, left, top, panel, panel_height, xlim=(edges[0], edges[-1]), ylim=(-len(names), 0), yticks=[])
            axes.spines["left"].set_visible(False)
            _set_ticks(axes, panel, stretched)
            reference = _heights(sets[test], edges)
            across = axes.get_yaxis_transform()  # x from 0 to 1, y in rows
            for row, (name, label) in enumerate(zip(names, labels)):
                base, middle, size = -row - 1, top + (row + 0.72) * band, 0.86
                axes.axhline(base, color=FAINT, linewidth=0.6, zorder=1)
                if i % columns == 0:
                    text_at(figure, left - 0.1, middle, label, ha="right", va="center", color=BLUE if name == test else INK)
                if not len(values := sets.get(name, ())):
                    axes.text(0.5, base + 0.3, "no scores", transform=across, ha="center", va="center", fontsize=SMALL, color=QUIET)
                    continue
                heights = base + size * _heights(values, edges)
                colour, alpha = (BLUE, 0.45) if name == test else (VERMILION, 0.55)
                filled = StepPatch(heights, edges, baseline=base, fill=True, color=colour, alpha=alpha, linewidth=0, zorder=2)
                outline = StepPatch(base + size * reference, edges, baseline=None, fill=False, edgecolor=BLUE, linewidth=0.8, zorder=3)
                for artist in (filled, outline):  # axes.stairs would spend half of the time on limits that are set already
                    axes.add_artist(artist)
                if (beyond := _beyond(values, edges)) >= 0.01:
                    axes.text(
                        0.96,
                        base + 0.6,
                        f"{beyond:.{0 if beyond >= 0.02 else 1}%} beyond",
                        transform=across,
                        ha="right",
                        fontsize=SMALL - 1,
                        color=QUIET,
                    )
                if (value := auroc.get(head, {}).get(name)) is not None:
                    text_at(figure, left + panel + 0.05, middle, f"{value:.3f}", va="center", fontsize=NOTE)
            known = [value for value in auroc.get(head, {}).values() if value is not None and np.isfinite(value)]
            title = fit(head, panel + numbers, LARGE, "bold")
            text_at(figure, left, top - 0.36, title, fontsize=LARGE, fontweight="bold")
            if known:
                word = "AUROC" if len(known) == 1 else "mean AUROC"
                scale = "; logit scale" if stretched else ""
                text_at(figure, left, top - 0.16, f"{word} {sum(known) / len(known):.3f}{scale}", fontsize=NOTE, color=QUIET)
            if i // columns == rows - 1 or i + columns >= len(table):
                meaning = "score, larger = more OOD →" if panel > 1.6 else "more OOD →"
                text_at(figure, left + panel, top + panel_height + 0.2, meaning, fontsize=SMALL, color=QUIET, ha="right")
    return Path(path)


def _near_certain(test: np.ndarray) -> bool:
    """Negated probabilities (MSP), half of which are within 2% of -1: on a plain axis they would be one bar."""
    import numpy as np

    return bool(test.min() >= -1 and test.max() <= 0 and np.median(test) < -0.98)


def _stretch(values: np.ndarray) -> np.ndarray:
    """Scores -p as log10((1 - p) / p), p kept 1e-9 away from 0 and 1."""
    import numpy as np

    p = np.clip(-values, 1e-9, 1 - 1e-9)
    return np.log10((1 - p) / p)


def _set_ticks(axes: Axes, panel: float, stretched: bool) -> None:
    """As many ticks as their labels have room for; of a stretched axis at round probabilities."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator

    low, high = axes.get_xlim()
    inch = panel / (high - low)
    if stretched:
        powers = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
        named = [(10.0**-n, f"−{1 - 10.0**-n:g}" if n < 4 else f"10{f'-{n}'.translate(powers)} − 1") for n in range(1, 10)]
        marks = [(math.log10(rest / (1 - rest)), text) for rest, text in [*named, (0.5, "−0.5"), (0.9, "−0.1")]]
    else:
        ticks = MaxNLocator(4 if panel > 2.5 else 3).tick_values(low, high)
        marks = [(tick, f"{round(tick, 12):.6g}".replace("-", "−")) for tick in ticks.tolist()]
    marks, kept = sorted(mark for mark in marks if low <= mark[0] <= high), []
    for place, text in marks:
        if not kept or (place - kept[-1][0]) * inch > (inches(text, SMALL) + inches(kept[-1][1], SMALL)) / 2 + 0.06:
            kept.append((place, text))
    if len(kept) < 2 <= len(marks):  # long numbers close together: two of them, well apart
        digits = max(0, math.ceil(-math.log10((high - low) / 20)))
        kept = [(place, f"{place:.{digits}f}".replace("-", "−")) for place in (low + 0.22 * (high - low), low + 0.78 * (high - low))]
    axes.xaxis.set_major_locator(FixedLocator([place for place, _ in kept]))
    axes.xaxis.set_major_formatter(FixedFormatter([text for _, text in kept]))


def _span(test: np.ndarray, others: Sequence[np.ndarray]) -> tuple[float, float]:
    """The shared range of the bins: all scores, but no further from the test scores than a few times their own width."""
    import numpy as np

    finite = [values[np.isfinite(values)] for values in (test, *others)]
    finite = [values for values in finite if len(values)]
    if not finite:
        return 0.0, 1.0
    inner_low, inner_high = np.quantile(finite[0], (0.02, 0.98))  # a few test scores of some heads are hundreds of times the others
    low = min(np.quantile(values, 0.002) for values in finite)
    high = max(np.quantile(values, 0.998) for values in finite)
    room = inner_high - inner_low
    if room > 0:
        low, high = max(low, inner_low - 3 * room), min(high, inner_high + 3 * room)
    if not high - low > 1e-9 * max(abs(low), abs(high), 1e-9):
        low, high = low - 0.5 * max(1e-6, abs(low)), high + 0.5 * max(1e-6, abs(high))
    return float(low), float(high)


def _heights(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    import numpy as np

    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return counts / max(1, counts.max())


def _beyond(values: np.ndarray, edges: np.ndarray) -> float:
    """The share of `values` that the outermost bins take in from outside."""
    return float(((values < edges[0]) | (values > edges[-1])).mean()) if len(values) else 0.0
