"""Attention over test images.   Legend: N images, C channels, H height, W width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnlab.figures.style import FAINT, INK, QUIET, SKY, SMALL, VERMILION, WIDTH, array_of, axes_at, canvas, fit, inches, text_at

if TYPE_CHECKING:
    from torch import Tensor


def attention_grid(
    images_NCHW: Tensor,
    maps_N1HW: Tensor,
    *,
    path: Path,
    rectangles_N5: Tensor | None = None,
    boxes_N4: Tensor | None = None,
    titles: Sequence[str] | None = None,
    correct: Sequence[bool] | None = None,
    columns: int = 8,
) -> Path | None:
    """Test images, and beneath each the same image under its attention map (bilinear; one colour scale for all; opacity by attention).

    images uint8, 1 or 3 channels; maps of any resolution; rectangles (cx, cy, w, h, theta), the image spanning [-1, 1] on both axes, theta
    in radians from x towards y (down); boxes (x0, y0, x1, y1) in pixels of the image, x1 and y1 exclusive, a row of NaN where unknown.
    titles: what the image is and, after a line break, what the network said. correct: a False frames the pair.
    None, and no file, for data that are not images (a 2-d toy) or an empty batch. ValueError: not as many maps as images.
    """
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap, Normalize
    from matplotlib.lines import Line2D
    from matplotlib.patches import Polygon
    from matplotlib.patheffects import withStroke
    from torch.nn import functional as F

    if images_NCHW.ndim != 4 or maps_N1HW.ndim != 4 or not len(images_NCHW):
        return None
    if len(images_NCHW) != len(maps_N1HW):
        raise ValueError(f"as many maps as images are needed, got {len(maps_N1HW)} maps for {len(images_NCHW)} images")
    number, channels, high, wide = images_NCHW.shape
    images = array_of(images_NCHW[:, :3] if channels >= 3 else images_NCHW[:, :1]).transpose(0, 2, 3, 1) / 255
    zoom = max(1, math.ceil(144 / max(high, wide)))  # small images are enlarged, so that the map over them is smooth
    maps = F.interpolate(maps_N1HW.detach().cpu().float().nan_to_num(), (high * zoom, wide * zoom), mode="bilinear", align_corners=False)
    maps = maps[:, 0].numpy()
    low, peak = float(maps.min()), float(maps.max())
    if peak - low < 0.02:  # constant maps: stretching them would draw rounding errors
        low, peak = 0.0, max(1.0, peak)
    scale, colours = Normalize(low, peak), ListedColormap(colormaps["inferno"](np.linspace(0, 0.92, 256)))

    columns = max(1, min(columns, number))
    rows, margin, gap, line_height = math.ceil(number / columns), 0.1, 0.07, 0.135
    cell = min((WIDTH - 2 * margin - (columns - 1) * gap) / columns, 1.6)
    grid = columns * cell + (columns - 1) * gap
    across = max(2 * margin + grid, 4.6)
    tall = min(cell * high / wide, 3 * cell)
    lines = max((str(title).count("\n") + 1 for title in titles or []), default=int(correct is not None))
    head = line_height * min(lines, 2) + 0.03 * (lines > 0)
    step, dashed = head + 2 * tall + 0.04 + 0.12, (0, (3, 1.5))
    with canvas(path, across, margin + rows * step + 0.32) as figure:
        for i in range(number):
            left, up = (across - grid) / 2 + (i % columns) * (cell + gap), margin + (i // columns) * step
            wrong = correct is not None and not bool(correct[i])
            texts = (str(titles[i]).split("\n") if titles else ["wrong" if wrong else ""])[:2]
            for line, text in enumerate(texts):
                said = line == len(texts) - 1
                colour = VERMILION if wrong and said else QUIET if line else INK
                shown = fit("✗ " * (wrong and said) + text, cell, SMALL)
                text_at(figure, left, up + line_height * line, shown, fontsize=SMALL, color=colour)
            image = np.broadcast_to(images[i], (high, wide, 3)).repeat(zoom, 0).repeat(zoom, 1)
            # Grey beneath the colour: the picture is read from light and dark, the attention from the hue. Little attention dims.
            share = np.asarray(scale(maps[i]))[..., None]
            opacity = 0.3 + 0.35 * share
            overlay = (1 - opacity) * (image @ [[0.299], [0.587], [0.114]]) + opacity * colours(share[..., 0])[..., :3]
            for down, picture in ((head, image), (head + tall + 0.04, overlay)):
                axes = axes_at(figure, left, up + down, cell, tall)
                axes.imshow(picture.clip(0, 1), extent=(0, wide, high, 0), aspect="auto")
                axes.set(xticks=[], yticks=[], xlim=(0, wide), ylim=(high, 0))
                axes.grid(False)
                axes.spines[:].set(visible=True, color=VERMILION if wrong else FAINT, linewidth=1.8 if wrong else 0.5)
            stroke = [withStroke(linewidth=2.4, foreground="#000000a0")]
            if boxes_N4 is not None and np.isfinite(box := array_of(boxes_N4[i])).all():
                corners = [(box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3])]
                axes.add_patch(Polygon(corners, fill=False, edgecolor=SKY, linewidth=1.3, linestyle=dashed, path_effects=stroke))
            if rectangles_N5 is not None and np.isfinite(rectangle := array_of(rectangles_N5[i])).all():
                cx, cy, w, h, theta = rectangle
                u, v = np.array([math.cos(theta), math.sin(theta)]) * w / 2, np.array([-math.sin(theta), math.cos(theta)]) * h / 2
                corners = np.array([(cx, cy) + a * u + b * v for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))])
                corners = (corners + 1) / 2 * (wide, high)
                axes.add_patch(Polygon(corners, fill=False, edgecolor="white", linewidth=1.3, path_effects=stroke))

        # What the lines and colours mean, in one row beneath.
        key, bottom = margin, margin + rows * step + 0.02
        bar = axes_at(figure, across - key - 1.2, bottom + 0.04, 0.9, 0.09)
        bar.imshow(colours(np.linspace(0, 1, 256))[None], aspect="auto", extent=(0, 1, 0, 1))
        bar.set(xticks=[], yticks=[])
        bar.spines[:].set_visible(False)
        for left, side, text in ((across - key - 1.25, "right", f"attention {low:.2f}"), (across - key - 0.25, "left", f"{peak:.2f}")):
            text_at(figure, left, bottom + 0.02, text, fontsize=SMALL, color=QUIET, ha=side)
        named = [("predicted rectangle", QUIET, "-", rectangles_N5), ("true box", SKY, dashed, boxes_N4)]
        for text, colour, dashes in (entry[:3] for entry in named if entry[3] is not None):
            height = 1 - (bottom + 0.085) / figure.get_figheight()
            figure.add_artist(Line2D([key / across, (key + 0.25) / across], [height, height], color=colour, linestyle=dashes))
            text_at(figure, key + 0.31, bottom + 0.02, text, fontsize=SMALL, color=QUIET)
            key += 0.56 + inches(text, SMALL)
    return Path(path)
