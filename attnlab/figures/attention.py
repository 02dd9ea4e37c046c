"""Attention over test images.   Legend: N images, C channels, H height, W width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnlab.figures.overlay import DASHED, colour_bar, coloured, heat_colours, image_at, outline_box, overlay
from attnlab.figures.style import INK, QUIET, SKY, SMALL, VERMILION, WIDTH, array_of, canvas, fit, inches, text_at

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


def under_maps(images_NCHW: Tensor, maps_N1HW: Tensor) -> tuple[list[np.ndarray], list[np.ndarray], float, float]:
    """The images (RGB from 0 to 1, small ones enlarged), the same under their maps (bilinear; one colour scale for all; opacity by
    attention), and the values at both ends of the scale."""
    import numpy as np
    from matplotlib.colors import Normalize
    from torch.nn import functional as F

    high, wide = images_NCHW.shape[2:]
    images, zoom = coloured(images_NCHW)
    maps = F.interpolate(maps_N1HW.detach().cpu().float().nan_to_num(), (high * zoom, wide * zoom), mode="bilinear", align_corners=False)
    maps = maps[:, 0].numpy()
    low, peak = float(maps.min()), float(maps.max())
    if peak - low < 0.02:  # constant maps: stretching them would draw rounding errors
        low, peak = 0.0, max(1.0, peak)
    scale, colours = Normalize(low, peak), heat_colours()
    return images, [overlay(image, np.asarray(scale(map_HW)), colours) for image, map_HW in zip(images, maps, strict=True)], low, peak


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
    from matplotlib.lines import Line2D
    from matplotlib.patches import Polygon
    from matplotlib.patheffects import withStroke

    if images_NCHW.ndim != 4 or maps_N1HW.ndim != 4 or not len(images_NCHW):
        return None
    if len(images_NCHW) != len(maps_N1HW):
        raise ValueError(f"as many maps as images are needed, got {len(maps_N1HW)} maps for {len(images_NCHW)} images")
    number, _, high, wide = images_NCHW.shape
    images, blended, low, peak = under_maps(images_NCHW, maps_N1HW)

    columns = max(1, min(columns, number))
    rows, margin, gap, line_height = math.ceil(number / columns), 0.1, 0.07, 0.135
    cell = min((WIDTH - 2 * margin - (columns - 1) * gap) / columns, 1.6)
    grid = columns * cell + (columns - 1) * gap
    across = max(2 * margin + grid, 4.6)
    tall = min(cell * high / wide, 3 * cell)
    lines = max((str(title).count("\n") + 1 for title in titles or []), default=int(correct is not None))
    head = line_height * min(lines, 2) + 0.03 * (lines > 0)
    step = head + 2 * tall + 0.04 + 0.12
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
            for down, picture in ((head, images[i]), (head + tall + 0.04, blended[i])):
                axes = image_at(figure, left, up + down, cell, tall, picture, extent=(0, wide, high, 0), framed=wrong)
            if boxes_N4 is not None:
                outline_box(axes, boxes_N4[i])
            stroke = [withStroke(linewidth=2.4, foreground="#000000a0")]
            if rectangles_N5 is not None and np.isfinite(rectangle := array_of(rectangles_N5[i])).all():
                cx, cy, w, h, theta = rectangle
                u, v = np.array([math.cos(theta), math.sin(theta)]) * w / 2, np.array([-math.sin(theta), math.cos(theta)]) * h / 2
                corners = np.array([(cx, cy) + a * u + b * v for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))])
                corners = (corners + 1) / 2 * (wide, high)
                axes.add_patch(Polygon(corners, fill=False, edgecolor="white", linewidth=1.3, path_effects=stroke))

        # What the lines and colours mean, in one row beneath.
        key, bottom = margin, margin + rows * step + 0.02
        colour_bar(figure, across - key, bottom, f"attention {low:.2f}", f"{peak:.2f}")
        named = [("predicted rectangle", QUIET, "-", rectangles_N5), ("true box", SKY, DASHED, boxes_N4)]
        for text, colour, dashes in (entry[:3] for entry in named if entry[3] is not None):
            height = 1 - (bottom + 0.085) / figure.get_figheight()
            figure.add_artist(Line2D([key / across, (key + 0.25) / across], [height, height], color=colour, linestyle=dashes))
            text_at(figure, key + 0.31, bottom + 0.02, text, fontsize=SMALL, color=QUIET)
            key += 0.56 + inches(text, SMALL)
    return Path(path)
