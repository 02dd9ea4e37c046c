"""Explanations of several methods over the same test images.   Legend: N images, C channels, H height, W width."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnlab.figures.overlay import (
    DASHED,
    colour_bar,
    coloured,
    heat_colours,
    image_at,
    outline_box,
    overlay,
    signed_colours,
    signed_overlay,
    signed_share,
)
from attnlab.figures.style import INK, QUIET, SKY, SMALL, VERMILION, WIDTH, canvas, fit, text_at

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from torch import Tensor

MARGIN, GAP, LINE = 0.1, 0.07, 0.135  # inches


def explanation_grid(
    images_NCHW: Tensor,
    maps: Mapping[str, Tensor],
    *,
    path: Path,
    boxes_N4: Tensor | None = None,
    titles: Sequence[str] | None = None,
    correct: Sequence[bool] | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
    signed: Collection[str] = (),
) -> Path | None:
    """A column an image, a row an explainer: the image, and beneath it the image under each explainer's map.

    images uint8, 1 or 3 channels; maps[explainer] (N, 1, h, w) of any resolution, larger = more relevant. Each map has the colours from 0
    to its own maximum, as methods differ in scale, and negative relevance is drawn as none; one named in `signed` has a diverging scale,
    blue below 0 and yellow above, that ends at the 99th percentile of its magnitude. boxes (x0, y0, x1, y1) in pixels, a row of NaN where
    unknown. titles: what the image is and, after a line break, what the network said. correct: a False frames the image.
    notes[explainer]: a line under each map, its score. None, and no file, without images or without maps.
    ValueError: not as many maps as images.
    """
    if images_NCHW.ndim != 4 or not len(images_NCHW) or not maps:
        return None
    number, _, high, wide = images_NCHW.shape
    pictures, images = _pictures(images_NCHW, maps, signed)
    side = 1.0
    cell = min((WIDTH - 2 * MARGIN - side - (number - 1) * GAP) / number, 1.6)
    tall, across = min(cell * high / wide, 3 * cell), max(2 * MARGIN + side + number * cell + (number - 1) * GAP, 4.6)
    head = LINE * max((str(title).count("\n") + 1 for title in titles or []), default=0) + 0.03
    foot = {name: LINE + 0.03 if any((notes or {}).get(name, ())) else 0.0 for name in maps}
    extent = (0, wide, high, 0)
    with canvas(path, across, MARGIN + head + tall + sum(GAP + tall + foot[name] for name in maps) + 0.36) as figure:
        text_at(figure, MARGIN, MARGIN + head + tall / 2, "image", va="center", fontsize=SMALL, color=QUIET)
        for i, image in enumerate(images):
            left = MARGIN + side + i * (cell + GAP)
            wrong = correct is not None and not bool(correct[i])
            for row, text in enumerate(str(titles[i]).split("\n")[:2] if titles else []):
                colour = VERMILION if wrong and row else QUIET if row else INK
                text_at(figure, left, MARGIN + LINE * row, fit(text, cell, SMALL), fontsize=SMALL, color=colour)
            axes = image_at(figure, left, MARGIN + head, cell, tall, image, extent=extent, framed=wrong)
            if boxes_N4 is not None:
                outline_box(axes, boxes_N4[i])
        top = MARGIN + head + tall + GAP
        for name in maps:
            _name(figure, name, MARGIN, top + tall / 2, side - 0.1)
            for i in range(number):
                left = MARGIN + side + i * (cell + GAP)
                axes = image_at(figure, left, top, cell, tall, pictures[name][i], extent=extent)
                if boxes_N4 is not None:
                    outline_box(axes, boxes_N4[i])
                if foot[name]:
                    text_at(figure, left, top + tall + 0.03, fit(notes[name][i], cell, SMALL), fontsize=SMALL, color=QUIET)
            top += tall + foot[name] + GAP
        _legend(figure, maps, signed, boxes_N4, top)
    return Path(path)


def explanations_of_one(
    images_NCHW: Tensor,
    maps: Mapping[str, Tensor],
    *,
    path: Path,
    boxes_N4: Tensor | None = None,
    titles: Sequence[str] | None = None,
    correct: Sequence[bool] | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
    signed: Collection[str] = (),
) -> Path | None:
    """One image under every explainer, four beside each other, narrow enough to be read on a phone: the first that the network gets right,
    else the first. As `explanation_grid` otherwise."""
    if images_NCHW.ndim != 4 or not len(images_NCHW) or not maps:
        return None
    _, _, high, wide = images_NCHW.shape
    chosen = next((i for i in range(len(images_NCHW)) if correct is None or bool(correct[i])), 0)
    pictures, images = _pictures(images_NCHW, maps, signed)
    title = " ".join(str(titles[chosen]).split()) if titles else ""
    shown = [("image", images[chosen], title)]
    shown += [(name, pictures[name][chosen], ((notes or {}).get(name) or [""] * (chosen + 1))[chosen]) for name in maps]
    beside, across = 4, 4.6
    cell = (across - 2 * MARGIN - (beside - 1) * GAP) / beside
    tall = min(cell * high / wide, 3 * cell)
    step = LINE + tall + LINE + 0.1
    rows = -(-len(shown) // beside)
    with canvas(path, across, MARGIN + rows * step + 0.36) as figure:
        for n, (name, picture, note) in enumerate(shown):
            left, top = MARGIN + n % beside * (cell + GAP), MARGIN + n // beside * step
            text_at(figure, left, top, fit(name.rpartition("/")[2], cell, SMALL, "bold"), fontsize=SMALL, fontweight="bold")
            axes = image_at(figure, left, top + LINE, cell, tall, picture, extent=(0, wide, high, 0))
            if boxes_N4 is not None:
                outline_box(axes, boxes_N4[chosen])
            text_at(figure, left, top + LINE + tall + 0.03, fit(note, cell, SMALL), fontsize=SMALL, color=QUIET)
        _legend(figure, maps, signed, boxes_N4, MARGIN + rows * step)
    return Path(path)


def _pictures(
    images_NCHW: Tensor, maps: Mapping[str, Tensor], signed: Collection[str]
) -> tuple[dict[str, list[np.ndarray]], list[np.ndarray]]:
    """Every image under every map, and the images alone, in RGB."""
    import numpy as np
    from torch.nn import functional as F

    number, _, high, wide = images_NCHW.shape
    images, zoom = coloured(images_NCHW)
    heat, diverging = heat_colours(), signed_colours()
    found = {}
    for name, map_N1HW in maps.items():
        if len(map_N1HW) != number:
            raise ValueError(f"as many maps as images are needed, got {len(map_N1HW)} maps of {name} for {number} images")
        values = map_N1HW.detach().cpu().float().nan_to_num()
        values = values if name in signed else values.clamp(min=0)
        values_NHW = F.interpolate(values, (high * zoom, wide * zoom), mode="bilinear", align_corners=False)[:, 0].numpy()
        if name in signed:
            found[name] = [signed_overlay(image, signed_share(one), diverging) for image, one in zip(images, values_NHW)]
        else:
            tiny = np.finfo(np.float32).tiny
            found[name] = [overlay(image, one / max(float(one.max()), tiny), heat) for image, one in zip(images, values_NHW)]
    return found, images


def _name(figure: Figure, name: str, left: float, middle: float, room: float) -> None:
    """An explainer's name; of one of several parts the part beneath it."""
    whole, _, part = name.partition("/")
    up = LINE / 2 if part else 0.0
    text_at(figure, left, middle - up, fit(whole, room, SMALL, "bold"), va="center", fontsize=SMALL, fontweight="bold")
    if part:
        text_at(figure, left, middle + up, fit(part, room, SMALL), va="center", fontsize=SMALL, color=QUIET)


def _legend(figure: Figure, maps: Collection[str], signed: Collection[str], boxes_N4: Any, top: float) -> None:
    """Colour bars, and the line of the true box where one is drawn."""
    import numpy as np
    from matplotlib.lines import Line2D

    across, down = figure.get_size_inches()
    right = across - MARGIN
    if set(maps) - set(signed):
        colour_bar(figure, right, top + 0.03, "relevance 0", "max")
        right -= 1.95
    if set(maps) & set(signed):
        colour_bar(figure, right, top + 0.03, "−", "+", colours=signed_colours())
    if boxes_N4 is not None and np.isfinite(np.asarray(boxes_N4)).all(1).any():
        level = 1 - (top + 0.115) / down
        figure.add_artist(Line2D([MARGIN / across, (MARGIN + 0.25) / across], [level, level], color=SKY, linestyle=DASHED))
        text_at(figure, MARGIN + 0.31, top + 0.05, "true box", fontsize=SMALL, color=QUIET)
