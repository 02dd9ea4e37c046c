"""Explanations of several methods over the same test images.   Legend: N images, C channels, H height, W width."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnlab.figures.overlay import DASHED, colour_bar, coloured, heat_colours, image_at, outline_box, overlay
from attnlab.figures.style import INK, QUIET, SKY, SMALL, VERMILION, WIDTH, canvas, fit, text_at

if TYPE_CHECKING:
    from torch import Tensor


def explanation_grid(
    images_NCHW: Tensor,
    maps: Mapping[str, Tensor],
    *,
    path: Path,
    boxes_N4: Tensor | None = None,
    titles: Sequence[str] | None = None,
    correct: Sequence[bool] | None = None,
    notes: Mapping[str, Sequence[str]] | None = None,
) -> Path | None:
    """A column an image, a row an explainer: the image, and beneath it the image under each explainer's map.

    images uint8, 1 or 3 channels; maps[explainer] (N, 1, h, w) of any resolution, larger = more relevant. Each map has the colours from 0
    to its own maximum, as methods differ in scale; negative relevance is drawn as none. boxes (x0, y0, x1, y1) in pixels, a row of NaN
    where unknown. titles: what the image is and, after a line break, what the network said. correct: a False frames the image.
    notes[explainer]: a line under each map, its score. None, and no file, without images or without maps.
    ValueError: not as many maps as images.
    """
    import numpy as np
    from matplotlib.lines import Line2D
    from torch.nn import functional as F

    if images_NCHW.ndim != 4 or not len(images_NCHW) or not maps:
        return None
    number, _, high, wide = images_NCHW.shape
    for name, map_N1HW in maps.items():
        if len(map_N1HW) != number:
            raise ValueError(f"as many maps as images are needed, got {len(map_N1HW)} maps of {name} for {number} images")
    images, zoom = coloured(images_NCHW)
    margin, gap, line, side = 0.1, 0.07, 0.135, 1.0
    cell = min((WIDTH - 2 * margin - side - (number - 1) * gap) / number, 1.6)
    tall, across = min(cell * high / wide, 3 * cell), max(2 * margin + side + number * cell + (number - 1) * gap, 4.6)
    head = line * max((str(title).count("\n") + 1 for title in titles or []), default=0) + 0.03
    foot = {name: line + 0.03 if any((notes or {}).get(name, ())) else 0.0 for name in maps}
    height = margin + head + tall + sum(gap + tall + foot[name] for name in maps) + 0.36
    colours, extent = heat_colours(), (0, wide, high, 0)
    with canvas(path, across, height) as figure:
        text_at(figure, margin, margin + head + tall / 2, "image", va="center", fontsize=SMALL, color=QUIET)
        for i, image in enumerate(images):
            left = margin + side + i * (cell + gap)
            wrong = correct is not None and not bool(correct[i])
            texts = str(titles[i]).split("\n")[:2] if titles else []
            for row, text in enumerate(texts):
                colour = VERMILION if wrong and row == len(texts) - 1 else QUIET if row else INK
                text_at(figure, left, margin + line * row, fit(text, cell, SMALL), fontsize=SMALL, color=colour)
            axes = image_at(figure, left, margin + head, cell, tall, image, extent=extent, framed=wrong)
            if boxes_N4 is not None:
                outline_box(axes, boxes_N4[i])
        top = margin + head + tall + gap
        for name, map_N1HW in maps.items():
            text_at(figure, margin, top + tall / 2, fit(name, side - 0.1, SMALL, "bold"), va="center", fontsize=SMALL, fontweight="bold")
            shown = map_N1HW.detach().cpu().float().nan_to_num().clamp(min=0)
            shown = F.interpolate(shown, (high * zoom, wide * zoom), mode="bilinear", align_corners=False)[:, 0].numpy()
            for i, image in enumerate(images):
                left = margin + side + i * (cell + gap)
                share = shown[i] / max(float(shown[i].max()), np.finfo(np.float32).tiny)
                axes = image_at(figure, left, top, cell, tall, overlay(image, share, colours), extent=extent)
                if boxes_N4 is not None:
                    outline_box(axes, boxes_N4[i])
                if foot[name]:
                    text_at(figure, left, top + tall + 0.03, fit(notes[name][i], cell, SMALL), fontsize=SMALL, color=QUIET)
            top += tall + foot[name] + gap
        colour_bar(figure, across - margin, top + 0.03, "relevance 0", "max")
        if boxes_N4 is not None and np.isfinite(np.asarray(boxes_N4)).all(1).any():
            level = 1 - (top + 0.115) / figure.get_figheight()
            figure.add_artist(Line2D([margin / across, (margin + 0.25) / across], [level, level], color=SKY, linestyle=DASHED))
            text_at(figure, margin + 0.31, top + 0.05, "true box", fontsize=SMALL, color=QUIET)
    return Path(path)
