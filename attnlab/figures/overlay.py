"""Images under maps: what the pictures of attention and of explanations share.   Legend: N images, C channels, H height, W width."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from attnlab.figures.style import FAINT, QUIET, SKY, SMALL, VERMILION, array_of, axes_at, text_at

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

DASHED = (0, (3, 1.5))


def coloured(images_NCHW: Tensor) -> tuple[list[np.ndarray], int]:
    """The images in RGB from 0 to 1, small ones enlarged by a whole factor so that a map over them is smooth; and the factor."""
    import numpy as np

    _, channels, high, wide = images_NCHW.shape
    images = array_of(images_NCHW[:, :3] if channels >= 3 else images_NCHW[:, :1]).transpose(0, 2, 3, 1) / 255
    zoom = max(1, math.ceil(144 / max(high, wide)))
    return [np.broadcast_to(image, (high, wide, 3)).repeat(zoom, 0).repeat(zoom, 1) for image in images], zoom


def heat_colours() -> Any:
    """From black to yellow."""
    import numpy as np
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["inferno"](np.linspace(0, 0.92, 256)))


def signed_colours() -> Any:
    """From dark blue (-1) over grey (0) to yellow (1): lighter with every step, so that a grey print keeps the sign."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", ["#0a1f66", "#3a5fc4", "#8a8a8a", "#e0b43c", "#fff2a0"])


def signed_share(map_HW: np.ndarray) -> np.ndarray:
    """A map with a sign in [-1, 1], by the 99th percentile of its magnitude: single pixels would take all the colour."""
    import numpy as np

    top = float(np.quantile(np.abs(map_HW), 0.99)) or float(np.abs(map_HW).max())
    return np.clip(map_HW / top, -1, 1) if top > 0 else np.zeros_like(map_HW)


def signed_overlay(image_HW3: np.ndarray, share_HW: np.ndarray, colours: Any) -> np.ndarray:
    """The map (-1 to 1) with a trace of the image, as signed maps are of single pixels that a picture beneath would hide."""
    return 0.15 * (image_HW3 @ [[0.299], [0.587], [0.114]]) + 0.85 * colours((share_HW + 1) / 2)[..., :3]


def overlay(image_HW3: np.ndarray, share_HW: np.ndarray, colours: Any) -> np.ndarray:
    """Grey beneath the colour: the picture is read from light and dark, the map (0 to 1) from the hue. A small value dims."""
    opacity = 0.3 + 0.35 * share_HW[..., None]
    return (1 - opacity) * (image_HW3 @ [[0.299], [0.587], [0.114]]) + opacity * colours(share_HW)[..., :3]


def image_at(
    figure: Figure, left: float, top: float, width: float, height: float, picture: np.ndarray, *, extent: tuple, framed: bool = False
) -> Axes:
    """`picture` in a thin frame, or a thick vermilion one; `extent` is left, right, bottom, top in pixels of the image."""
    axes = axes_at(figure, left, top, width, height)
    axes.imshow(picture.clip(0, 1), extent=extent, aspect="auto")
    axes.set(xticks=[], yticks=[], xlim=extent[:2], ylim=extent[2:])
    axes.grid(False)
    axes.spines[:].set(visible=True, color=VERMILION if framed else FAINT, linewidth=1.8 if framed else 0.5)
    return axes


def outline_box(axes: Axes, box_4: Any) -> None:
    """A true box (x0, y0, x1, y1), dashed; nothing where it is unknown (NaN)."""
    import numpy as np
    from matplotlib.patches import Polygon
    from matplotlib.patheffects import withStroke

    box = array_of(box_4)
    if np.isfinite(box).all():
        corners = [(box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3])]
        stroke = [withStroke(linewidth=2.4, foreground="#000000a0")]
        axes.add_patch(Polygon(corners, fill=False, edgecolor=SKY, linewidth=1.3, linestyle=DASHED, path_effects=stroke))


def colour_bar(figure: Figure, right: float, top: float, low: str, high: str, *, colours: Any = None) -> None:
    """The colours (by default those of heat) from `low` to `high`, ending at `right`."""
    import numpy as np

    bar = axes_at(figure, right - 1.2, top + 0.04, 0.9, 0.09)
    bar.imshow((colours or heat_colours())(np.linspace(0, 1, 256))[None], aspect="auto", extent=(0, 1, 0, 1))
    bar.set(xticks=[], yticks=[])
    bar.spines[:].set_visible(False)
    for left, side, text in ((right - 1.25, "right", low), (right - 0.25, "left", high)):
        text_at(figure, left, top + 0.02, text, fontsize=SMALL, color=QUIET, ha=side)
