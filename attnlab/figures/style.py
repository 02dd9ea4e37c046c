"""House style of the pictures: colours, sizes, a canvas that is written whole or not at all, text that is measured before it is set.

No pyplot, no global state: matplotlib is imported when the first picture is drawn and its settings are put back afterwards.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, QUIET, FAINT = "#222222", "#6b6b6b", "#dddddd"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#B5578D", "#C98500", "#56B4E9"
BROWN, INDIGO, OLIVE, GREY = "#7A4419", "#4B3F9E", "#6E7500", "#7D7D7D"
# Okabe and Ito (2008), two of them darkened to be read as text on white; then four of ours, for a seventh line and on
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BROWN, INDIGO, OLIVE, GREY)
WIDTH, DPI = 8.0, 150  # inches, dots an inch
SMALL, NOTE, NORMAL, LARGE = 7.0, 7.5, 8.5, 10.0  # points
STYLE = {
    "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans"], "font.size": NORMAL, "text.color": INK, "text.parse_math": False,
    "axes.edgecolor": QUIET, "axes.labelcolor": QUIET, "axes.linewidth": 0.6, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "axes.axisbelow": True, "axes.unicode_minus": True, "axes.formatter.useoffset": False, "grid.color": "#ececec",
    "grid.linewidth": 0.6, "xtick.color": QUIET, "ytick.color": QUIET, "xtick.labelsize": SMALL, "ytick.labelsize": SMALL,
    "xtick.major.size": 2.5, "ytick.major.size": 0.0, "xtick.major.width": 0.6, "lines.linewidth": 1.6, "lines.solid_capstyle": "round",
    "figure.facecolor": "white", "savefig.facecolor": "white", "svg.hashsalt": "attnlab",
}  # fmt: skip


@contextmanager
def canvas(path: Path, width: float, height: float) -> Iterator[Figure]:
    """A figure of `width` x `height` inches, written to `path` when the block ends without an error."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a class name in a script the font lacks is drawn as boxes
        figure = Figure(figsize=(width, height), dpi=DPI)
        FigureCanvasAgg(figure)
        yield figure
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            figure.savefig(unfinished, format=path.suffix[1:] or "png", dpi=DPI)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)


def axes_at(figure: Figure, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
    """Axes placed in inches from the figure's top left corner: exact, so that text never runs into its neighbour."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down), **options)


def logarithmic(axes: Axes, which: str, low: float, high: float) -> None:
    """Make the `x` or the `y` axis, whose values lie between `low` and `high`, above 0, logarithmic, with plain numbers as its ticks."""
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set(**{f"{which}scale": "log"})
    axis = getattr(axes, f"{which}axis")
    decades = math.log10(high / low)
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2 else (1, 3) if decades < 4 else (1,)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())


def text_at(figure: Figure, left: float, top: float, text: str, **options: Any) -> None:
    across, down = figure.get_size_inches()
    figure.text(left / across, 1 - top / down, text, **{"va": "top", "ha": "left", **options})


def inches(text: str, size: float, weight: str = "normal") -> float:
    """How wide `text` is at `size` points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
        return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def fit(text: str, room: float, size: float, weight: str = "normal") -> str:
    """`text`, with its middle taken out where it is wider than `room` inches at `size` points."""
    text = " ".join(str(text).split())
    shown, keep = text, len(text)
    while keep > 1 and inches(shown, size, weight) > room:
        keep -= 1
        shown = text[: math.ceil(keep / 2)].rstrip() + "…" + text[len(text) - keep // 2 :].lstrip()
    return shown


def array_of(values: Any) -> np.ndarray:
    """A tensor (any device, bf16 too), array or list as a float64 array."""
    import numpy as np

    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def thousands(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")


def dash(number: int) -> Any:
    """Once the colours are used up: solid, dashed, dotted."""
    return ("-", (0, (4, 1.5)), (0, (1, 1.2)))[number % 3]


def end_labels(
    figure: Figure, axes: Axes, lines: Sequence[tuple[str, np.ndarray, str]], *, left: float, top: float, tall: float, room: float
) -> None:
    """Name and last value of every line at its right end, moved apart where they would touch."""
    import numpy as np

    gap, placed = 0.145, []
    for key, values, colour in lines:
        final = float(values[np.isfinite(values)][-1])
        share = axes.transAxes.inverted().transform(axes.transData.transform((0, final)))[1]
        split, _, rest = key.partition("/")
        name = rest.split("/", 1)[1] if "/" in rest else split
        value = f" {final:.3f}" if 0.001 <= abs(final) < 100 or final == 0 else f" {final:.2g}"
        placed.append([top + tall * (1 - min(1.0, max(0.0, float(share)))), name, value, colour])
    placed.sort(key=lambda label: label[0])
    for i in range(1, len(placed)):
        placed[i][0] = max(placed[i][0], placed[i - 1][0] + gap)
    limit = top + tall + 0.03
    for label in reversed(placed):
        label[0] = limit = min(label[0], limit)
        limit -= gap
    for height, name, value, colour in placed:
        shown = fit(name, room - inches(value, NOTE), NOTE) + value
        text_at(figure, left, height, shown, va="center", fontsize=NOTE, color=colour)
