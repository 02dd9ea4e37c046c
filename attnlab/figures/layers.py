"""How signals change over the depth of a network: a panel a quantity, a point a layer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from attnlab.figures.style import BLUE, NORMAL, QUIET, SMALL, WIDTH, axes_at, canvas, text_at


def layer_curves(by_layer: Mapping[str, Mapping[str, float]], *, path: Path) -> Path | None:
    """by_layer: quantities by the name of a layer, in the order of the pass. None, and no file, without a layer."""
    if not by_layer:
        return None
    quantities = list(next(iter(by_layer.values())))
    left, gap, tall = 0.5, 0.55, 1.6
    width = (WIDTH - left - 0.1) / len(quantities) - gap
    with canvas(path, WIDTH, 0.4 + tall + 0.5) as figure:
        for index, quantity in enumerate(quantities):
            start = left + index * (width + gap)
            axes = axes_at(figure, start, 0.4, width, tall)
            text_at(figure, start, 0.12, quantity.replace("_", " "), fontsize=NORMAL, fontweight="bold")
            axes.plot(range(1, len(by_layer) + 1), [found[quantity] for found in by_layer.values()], color=BLUE, marker="o", markersize=2.5)
            axes.set_xlabel("layer", fontsize=SMALL, labelpad=2, color=QUIET)
            axes.margins(x=0.05, y=0.1)
    return Path(path)
