"""Deletion and insertion curves of several explainers.   Legend: N images, S points of a curve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from attnlab.figures.style import (
    COLOURS,
    FAINT,
    INK,
    LARGE,
    NOTE,
    QUIET,
    SMALL,
    WIDTH,
    array_of,
    axes_at,
    canvas,
    dash,
    fit,
    inches,
    text_at,
)

if TYPE_CHECKING:
    from torch import Tensor

BANDS = 3  # of more the colours run into each other
PANELS = (("deletion", "pixels removed", "lower is better"), ("insertion", "pixels inserted", "higher is better"))


def faithfulness_curves(curves: Mapping[str, Mapping[str, Tensor]], *, path: Path) -> Path | None:
    """The class's probability as pixels go (deletion) or come (insertion): the mean over images, and its 95% interval as a band.

    curves[explainer]["deletion" | "insertion"] (N, S), of equally many points. Explainers are listed by the area under their mean curve,
    the best first; the first six have a colour, the first three their band, the others are thin and
    grey. None, and no file, without curves.
    """
    import numpy as np

    values = {name: {kind: array_of(found[kind]) for kind, _, _ in PANELS} for name, found in curves.items()}
    if not values:
        return None
    left, top, width, room = 0.45, 0.5, 1.9, 1.18
    tall = max(2.15, 0.145 * len(values))
    with canvas(path, WIDTH, top + tall + 0.5) as figure:
        for panel, (kind, label, better) in enumerate(PANELS):
            start = left + panel * (WIDTH + 0.1) / 2
            axes = axes_at(figure, start, top, width, tall, xlim=(0, 1), ylim=(0, 1), xlabel=f"share of {label}")
            text_at(figure, start, 0.13, kind, fontsize=LARGE, fontweight="bold")
            words = "probability of the class" if panel == 0 else ""
            text_at(figure, start, 0.31, ", ".join(filter(None, [better, words])), fontsize=SMALL, color=QUIET)
            means = {name: found[kind].mean(0) for name, found in values.items()}
            areas = {name: float(((mean[1:] + mean[:-1]) / 2).mean()) for name, mean in means.items()}
            order = sorted(areas, key=lambda name: areas[name] if kind == "deletion" else -areas[name])
            for place, name in reversed(list(enumerate(order))):
                curve_NS = values[name][kind]
                share = np.linspace(0, 1, curve_NS.shape[1])
                chosen = place < len(COLOURS)
                colour = COLOURS[place] if chosen else QUIET
                if place < BANDS and len(curve_NS) > 1:
                    half = 1.96 * curve_NS.std(0, ddof=1) / len(curve_NS) ** 0.5
                    axes.fill_between(share, means[name] - half, means[name] + half, color=colour, alpha=0.13, linewidth=0)
                style = {"linewidth": 1.5, "linestyle": dash(place)} if chosen else {"linewidth": 0.7, "alpha": 0.6}
                axes.plot(share, means[name], color=colour, **style)
                level = top + 0.145 * place + 0.07
                edge = start + width + 0.1
                key = axes_at(figure, edge, level - 0.03, 0.22, 0.06, xlim=(0, 1), ylim=(-1, 1))
                key.plot([0, 1], [0, 0], color=colour, **style)
                key.axis("off")
                value = f" {areas[name]:.3f}"
                shown = fit(name.rpartition("/")[2], room - inches(value, NOTE), NOTE) + value
                text_at(figure, edge + 0.28, level, shown, va="center", fontsize=NOTE, color=INK if chosen else QUIET)
            axes.spines[:].set_color(FAINT)
    return Path(path)
