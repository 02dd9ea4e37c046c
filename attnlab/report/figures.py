"""The pictures a run leaves behind: attention over test images, OOD score histograms, consistency, training curves, reliability.

Every function writes one file (the suffix names the format) and returns its path, or None where there is nothing to draw (no images, an
empty history). A picture is written under a temporary name and then renamed, so what is there is whole. No pyplot, no global state:
matplotlib is imported when the first picture is drawn and its settings are put back afterwards. 8 inches wide, readable at 800 pixels.

Legend: N images, C channels, H height, W width, K classes.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor

INK, QUIET, FAINT = "#222222", "#6b6b6b", "#dddddd"
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#B5578D", "#C98500", "#56B4E9"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)  # Okabe and Ito (2008), two of them darkened to be read as text on white
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


# -- house style ------------------------------------------------------------------------------------------------------------------


@contextmanager
def _canvas(path: Path, width: float, height: float) -> Iterator[Figure]:
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


def _axes(figure: Figure, left: float, top: float, width: float, height: float, **options: Any) -> Axes:
    """Axes placed in inches from the figure's top left corner: exact, so that text never runs into its neighbour."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down), **options)


def _text(figure: Figure, left: float, top: float, text: str, **options: Any) -> None:
    across, down = figure.get_size_inches()
    figure.text(left / across, 1 - top / down, text, **{"va": "top", "ha": "left", **options})


def _inches(text: str, size: float, weight: str = "normal") -> float:
    """How wide `text` is at `size` points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
        return text_to_path.get_text_width_height_descent(text, font, ismath=False)[0] / 72


def _fit(text: str, room: float, size: float, weight: str = "normal") -> str:
    """`text`, with its middle taken out where it is wider than `room` inches at `size` points."""
    text = " ".join(str(text).split())
    shown, keep = text, len(text)
    while keep > 1 and _inches(shown, size, weight) > room:
        keep -= 1
        shown = text[: math.ceil(keep / 2)].rstrip() + "…" + text[len(text) - keep // 2 :].lstrip()
    return shown


def _array(values: Any) -> np.ndarray:
    """A tensor (any device, bf16 too), array or list as a float64 array."""
    import numpy as np

    if hasattr(values, "detach"):
        values = values.detach().cpu().double().numpy()
    return np.asarray(values, dtype=np.float64)


def _thousands(number: int) -> str:
    return f"{number:,}".replace(",", "\u202f")


# -- attention --------------------------------------------------------------------------------------------------------------------


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
    images = _array(images_NCHW[:, :3] if channels >= 3 else images_NCHW[:, :1]).transpose(0, 2, 3, 1) / 255
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
    with _canvas(path, across, margin + rows * step + 0.32) as figure:
        for i in range(number):
            left, up = (across - grid) / 2 + (i % columns) * (cell + gap), margin + (i // columns) * step
            wrong = correct is not None and not bool(correct[i])
            texts = (str(titles[i]).split("\n") if titles else ["wrong" if wrong else ""])[:2]
            for line, text in enumerate(texts):
                said = line == len(texts) - 1
                colour = VERMILION if wrong and said else QUIET if line else INK
                shown = _fit("✗ " * (wrong and said) + text, cell, SMALL)
                _text(figure, left, up + line_height * line, shown, fontsize=SMALL, color=colour)
            image = np.broadcast_to(images[i], (high, wide, 3)).repeat(zoom, 0).repeat(zoom, 1)
            # Grey beneath the colour: the picture is read from light and dark, the attention from the hue. Little attention dims.
            share = np.asarray(scale(maps[i]))[..., None]
            opacity = 0.3 + 0.35 * share
            overlay = (1 - opacity) * (image @ [[0.299], [0.587], [0.114]]) + opacity * colours(share[..., 0])[..., :3]
            for down, picture in ((head, image), (head + tall + 0.04, overlay)):
                axes = _axes(figure, left, up + down, cell, tall)
                axes.imshow(picture.clip(0, 1), extent=(0, wide, high, 0), aspect="auto")
                axes.set(xticks=[], yticks=[], xlim=(0, wide), ylim=(high, 0))
                axes.grid(False)
                axes.spines[:].set(visible=True, color=VERMILION if wrong else FAINT, linewidth=1.8 if wrong else 0.5)
            stroke = [withStroke(linewidth=2.4, foreground="#000000a0")]
            if boxes_N4 is not None and np.isfinite(box := _array(boxes_N4[i])).all():
                corners = [(box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3])]
                axes.add_patch(Polygon(corners, fill=False, edgecolor=SKY, linewidth=1.3, linestyle=dashed, path_effects=stroke))
            if rectangles_N5 is not None and np.isfinite(rectangle := _array(rectangles_N5[i])).all():
                cx, cy, w, h, theta = rectangle
                u, v = np.array([math.cos(theta), math.sin(theta)]) * w / 2, np.array([-math.sin(theta), math.cos(theta)]) * h / 2
                corners = np.array([(cx, cy) + a * u + b * v for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))])
                corners = (corners + 1) / 2 * (wide, high)
                axes.add_patch(Polygon(corners, fill=False, edgecolor="white", linewidth=1.3, path_effects=stroke))

        # What the lines and colours mean, in one row beneath.
        key, bottom = margin, margin + rows * step + 0.02
        bar = _axes(figure, across - key - 1.2, bottom + 0.04, 0.9, 0.09)
        bar.imshow(colours(np.linspace(0, 1, 256))[None], aspect="auto", extent=(0, 1, 0, 1))
        bar.set(xticks=[], yticks=[])
        bar.spines[:].set_visible(False)
        for left, side, text in ((across - key - 1.25, "right", f"attention {low:.2f}"), (across - key - 0.25, "left", f"{peak:.2f}")):
            _text(figure, left, bottom + 0.02, text, fontsize=SMALL, color=QUIET, ha=side)
        named = [("predicted rectangle", QUIET, "-", rectangles_N5), ("true box", SKY, dashed, boxes_N4)]
        for text, colour, dashes in (entry[:3] for entry in named if entry[3] is not None):
            height = 1 - (bottom + 0.085) / figure.get_figheight()
            figure.add_artist(Line2D([key / across, (key + 0.25) / across], [height, height], color=colour, linestyle=dashes))
            _text(figure, key + 0.31, bottom + 0.02, text, fontsize=SMALL, color=QUIET)
            key += 0.56 + _inches(text, SMALL)
    return Path(path)


# -- scores -----------------------------------------------------------------------------------------------------------------------


def score_histograms(
    scores: Mapping[str, Mapping[str, Tensor]],
    *,
    path: Path,
    auroc: Mapping[str, Mapping[str, float]] | None = None,
    test: str = "test",
) -> Path | None:
    """One panel a head, one row a data set: the OOD scores (filled) against those of the test set (`scores[head][test]`, outlined).

    Bins are shared within a head and cover its test scores and what is near them; what lies beyond is counted in the outermost bins.
    Each histogram is drawn to its own height. auroc[head][set] is written beside its row, their mean in the head's title. NaN scores are
    left out. None, and no file, where no head has scores of the test set.
    """
    import numpy as np
    from matplotlib.patches import StepPatch
    from matplotlib.ticker import MaxNLocator

    table = {head: {name: _array(values).ravel() for name, values in sets.items()} for head, sets in scores.items()}
    table = {head: {name: values[~np.isnan(values)] for name, values in sets.items()} for head, sets in table.items()}
    table = {head: sets for head, sets in table.items() if len(sets.get(test, ()))}
    if not table:
        return None
    others = list(dict.fromkeys(name for sets in table.values() for name in sets if name != test))
    names = [test, *others]
    auroc = auroc or {}

    columns = min(len(table), 4 if len(table) != 5 else 3)
    rows, margin = math.ceil(len(table) / columns), 0.12
    labels = [_fit(name, 1.35, NORMAL) for name in names]
    gutter = 0.12 + max(_inches(label, NORMAL) for label in labels)
    numbers = 0.4 if any(auroc.get(head) for head in table) else 0.08
    band = min(0.55, max(0.25, 2.2 / len(names)))
    panel, panel_height = (WIDTH - 2 * margin - gutter - (columns - 1) * 0.12) / columns - numbers, band * len(names)
    above, below = 0.46, 0.42
    pitch = above + panel_height + below
    with _canvas(path, WIDTH, margin + rows * pitch) as figure:
        for i, (head, sets) in enumerate(table.items()):
            left, top = margin + gutter + (i % columns) * (panel + numbers + 0.12), margin + above + (i // columns) * pitch
            edges = np.linspace(*_span(sets[test], [sets[name] for name in others if name in sets]), 61)
            axes = _axes(figure, left, top, panel, panel_height, xlim=(edges[0], edges[-1]), ylim=(-len(names), 0), yticks=[])
            axes.spines["left"].set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(4 if panel > 2.5 else 3))
            reference = _heights(sets[test], edges)
            across = axes.get_yaxis_transform()  # x from 0 to 1, y in rows
            for row, (name, label) in enumerate(zip(names, labels)):
                base, middle, size = -row - 1, top + (row + 0.72) * band, 0.86
                axes.axhline(base, color=FAINT, linewidth=0.6, zorder=1)
                if i % columns == 0:
                    _text(figure, left - 0.1, middle, label, ha="right", va="center", color=BLUE if name == test else INK)
                if not len(values := sets.get(name, ())):
                    axes.text(0.5, base + 0.3, "no scores", transform=across, ha="center", va="center", fontsize=SMALL, color=QUIET)
                    continue
                heights = base + size * _heights(values, edges)
                colour, alpha = (BLUE, 0.45) if name == test else (VERMILION, 0.55)
                filled = StepPatch(heights, edges, baseline=base, fill=True, color=colour, alpha=alpha, linewidth=0, zorder=2)
                outline = StepPatch(base + size * reference, edges, baseline=None, fill=False, edgecolor=BLUE, linewidth=0.8, zorder=3)
                for artist in (filled, outline):  # axes.stairs would spend half of the time on limits that are set already
                    axes.add_artist(artist)
                if (beyond := _beyond(values, edges)) >= 0.02:
                    axes.text(0.96, base + 0.6, f"{beyond:.0%} beyond", transform=across, ha="right", fontsize=SMALL - 1, color=QUIET)
                if (value := auroc.get(head, {}).get(name)) is not None:
                    _text(figure, left + panel + 0.05, middle, f"{value:.3f}", va="center", fontsize=NOTE)
            known = [value for value in auroc.get(head, {}).values() if value is not None and np.isfinite(value)]
            title = _fit(head, panel + numbers, LARGE, "bold")
            _text(figure, left, top - 0.36, title, fontsize=LARGE, fontweight="bold")
            if known:
                word = "AUROC" if len(known) == 1 else "mean AUROC"
                _text(figure, left, top - 0.16, f"{word} {sum(known) / len(known):.3f}", fontsize=NOTE, color=QUIET)
            if i // columns == rows - 1 or i + columns >= len(table):
                meaning = "score, larger = more OOD →" if panel > 1.6 else "more OOD →"
                _text(figure, left + panel, top + panel_height + 0.2, meaning, fontsize=SMALL, color=QUIET, ha="right")
    return Path(path)


def _span(test: np.ndarray, others: Sequence[np.ndarray]) -> tuple[float, float]:
    """The shared range of the bins: all scores, but no further from the test scores than a few times their own width."""
    import numpy as np

    finite = [values[np.isfinite(values)] for values in (test, *others)]
    finite = [values for values in finite if len(values)]
    if not finite:
        return 0.0, 1.0
    inner_low, inner_high = np.quantile(finite[0], (0.005, 0.995))
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


# -- consistency ------------------------------------------------------------------------------------------------------------------


def consistency(
    scores: Mapping[str, Mapping[str, Tensor]], correct_N: Tensor, *, path: Path, test: str = "test", most: int = 4
) -> Path | None:
    """Accuracy of what is kept against the share that a head rejects, of the test set mixed with one OOD set, whose samples all count as
    wrong (2404.08476): one panel an OOD set (the first `most`), one line a head. A head that sees what is foreign, or what the network gets
    wrong, gives a rising line; dashed, the best that any score could do.

    scores[head][set] as for `score_histograms`; correct_N (N,) bool, whether the network was right on each test image. The last tenth is
    not drawn: few samples are left. A head with NaN scores of a set has no line there. None, and no file, where there is nothing to draw.
    ValueError: not as many test scores as `correct_N`.
    """
    import numpy as np
    import torch

    from attnlab.ood.consistency import consistency_curve

    correct_N = torch.as_tensor(correct_N).cpu().bool()
    rejected = np.linspace(0, 0.9, 91)
    panels: dict[str, dict[str, np.ndarray]] = {}
    best: dict[str, np.ndarray] = {}
    for head, sets in scores.items():
        if test not in sets:
            continue
        if len(sets[test]) != len(correct_N):
            raise ValueError(f"as many answers as test scores are needed, got {len(correct_N)} for {len(sets[test])} of {head}")
        for name in (name for name in sets if name != test):
            mixed_M = torch.cat([sets[test].detach().cpu().double(), sets[name].detach().cpu().double()])
            right_M = torch.cat([correct_N, torch.zeros(len(sets[name]), dtype=torch.bool)])
            if len(mixed_M) == 0 or mixed_M.isnan().any():
                continue
            panels.setdefault(name, {})[head] = consistency_curve(mixed_M, right_M, fractions=rejected.tolist()).numpy()
            best[name] = consistency_curve((~right_M).double(), right_M, fractions=rejected.tolist()).numpy()
    if not panels:
        return None
    left_out, panels = len(panels) - most, dict(list(panels.items())[:most])

    heads = list(dict.fromkeys(head for lines in panels.values() for head in lines))
    inks = {head: (COLOURS[i % len(COLOURS)], _dashes(i // len(COLOURS))) for i, head in enumerate(heads)}
    lowest = min(float(line.min()) for lines in panels.values() for line in lines.values())
    columns = min(2, len(panels))
    rows, margin, scale_room, label_room, above, below = math.ceil(len(panels) / columns), 0.1, 0.42, 1.12, 0.42, 0.46
    room = (WIDTH - 2 * margin) / columns
    width, tall = room - scale_room - label_room, max(2.1 if columns == 2 else 2.6, 0.15 * len(heads))
    note = "dashed: the best that any score could do; everything OOD counts as wrong"
    if left_out > 0:
        note += f"; {left_out} more OOD set{'s are' if left_out > 1 else ' is'} not drawn"
    with _canvas(path, WIDTH, rows * (above + tall + below) + 0.16) as figure:
        for i, (name, lines) in enumerate(panels.items()):
            left, top = margin + scale_room + (i % columns) * room, above + (i // columns) * (above + tall + below)
            axes = _axes(figure, left, top, width, tall, xlim=(0, 0.9), ylim=(max(0.0, lowest - 0.03), 1.01))
            _text(figure, left, top - 0.29, _fit(f"{test} + {name}", width + label_room, LARGE, "bold"), fontsize=LARGE, fontweight="bold")
            axes.plot(rejected, best[name], color=QUIET, linewidth=0.9, linestyle=(0, (3, 2)), zorder=2)
            for head, line in lines.items():
                colour, dashes = inks[head]
                axes.plot(rejected, line, color=colour, linestyle=dashes, zorder=3)
            axes.set_xticks([0, 0.2, 0.4, 0.6, 0.8])
            axes.set_xlabel("share rejected", fontsize=SMALL, labelpad=2)
            if i % columns == 0:
                axes.set_ylabel("accuracy of what is kept", fontsize=SMALL)
            ends = [(head, line, inks[head][0]) for head, line in lines.items()]
            _end_labels(figure, axes, ends, left=left + width + 0.07, top=top, tall=tall, room=label_room - 0.1)
        _text(figure, margin + scale_room, figure.get_size_inches()[1] - 0.2, note, fontsize=SMALL, color=QUIET)
    return Path(path)


# -- training ---------------------------------------------------------------------------------------------------------------------


def training_curves(history: Sequence[Mapping[str, float]], *, path: Path) -> Path | None:
    """Loss (its terms, logarithmic where it spans decades) and accuracy over the epochs, each with a thin axis beneath: the learning rate
    and the images per second.

    history: one mapping an epoch, "epoch" and any of ".../loss", ".../loss/<term>", ".../acc", "lr", "images_per_second"; an epoch that
    comes twice (a resumed run) counts once, the last. None, and no file, where there is nothing to draw.
    """
    import numpy as np
    from matplotlib.ticker import LogLocator, NullLocator

    rows = {int(row.get("epoch", i)): row for i, row in enumerate(history)}
    epochs = np.array(sorted(rows))
    keys = list(dict.fromkeys(key for epoch in epochs for key in rows[epoch]))
    lines = {key: np.array([rows[epoch].get(key) for epoch in epochs], dtype=np.float64) for key in keys}  # None becomes NaN
    lines = {key: np.where(np.isfinite(values), values, np.nan) for key, values in lines.items() if np.isfinite(values).any()}
    terms = [key for key in lines if "/loss/" in key]
    for split in {key.split("/loss/")[0] for key in terms}:  # a single term is the loss itself
        if sum(key.startswith(f"{split}/loss/") for key in terms) == 1 and f"{split}/loss" in lines:
            terms = [key for key in terms if not key.startswith(f"{split}/loss/")]
    losses = [key for key in lines if key.endswith("/loss")] + terms
    accuracies = [key for key in lines if key.endswith("/acc")]
    panels = [(losses, "loss", "lr", "learning rate"), (accuracies, "accuracy", "images_per_second", "images/s")]
    panels = [panel for panel in panels if panel[0]]
    if not panels:
        return None

    margin, scale_room, strip = 0.1, 0.42, 0.3
    inks = _line_colours(lines, losses + accuracies)
    label_room = 1.12
    width = (WIDTH - 2 * margin) / len(panels) - scale_room - label_room
    tall = max(2.1, 0.15 * max(len(panel[0]) for panel in panels))
    strips = any(panel[2] in lines for panel in panels)
    with _canvas(path, WIDTH, 0.42 + tall + strips * (strip + 0.22) + 0.42) as figure:
        for i, (chosen, title, extra, extra_title) in enumerate(panels):
            left = margin + scale_room + i * (WIDTH - 2 * margin) / len(panels)
            axes = _axes(figure, left, 0.42, width, tall)
            _text(figure, left, 0.13, title, fontsize=LARGE, fontweight="bold")
            for key in chosen:
                colour, dashes = inks[key]
                thick = 1.1 if "/loss/" in key else 1.7
                axes.plot(epochs, lines[key], color=colour, linestyle=dashes, linewidth=thick, **_marks(lines[key]))
            values = np.concatenate([lines[key] for key in chosen])
            values = values[np.isfinite(values)]
            if title == "loss" and values.min() > 0 and values.max() > 50 * values.min():
                axes.set_yscale("log")
                decades = math.log10(values.max() / values.min())
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if decades < 2 else (1, 3) if decades < 4 else (1,)))
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_locator(NullLocator())
            elif title == "loss" and values.min() >= 0:
                axes.set_ylim(bottom=0)
            _epoch_axis(axes, epochs)
            ends = [(key, lines[key], inks[key][0]) for key in chosen]
            _end_labels(figure, axes, ends, left=left + width + 0.07, top=0.42, tall=tall, room=label_room - 0.1)
            last = axes
            if extra in lines:
                axes.tick_params(labelbottom=False)
                last = _axes(figure, left, 0.42 + tall + 0.22, width, strip)
                last.plot(epochs, lines[extra], color=QUIET, linewidth=1.0, **_marks(lines[extra]))
                last.set(ylim=(0, 1.15 * max(1e-12, float(np.nanmax(lines[extra])))), yticks=[])
                _epoch_axis(last, epochs)
                most = float(np.nanmax(lines[extra]))
                shown = _thousands(round(most)) if most >= 100 else f"{most:.3g}"
                _text(figure, left, 0.42 + tall + 0.07, f"{extra_title}, at most {shown}", fontsize=SMALL, color=QUIET)
            last.set_xlabel("epoch", fontsize=SMALL, labelpad=2)
    return Path(path)


def _line_colours(lines: Mapping[str, Any], chosen: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Totals in ink, validation in blue, training grey and dashed where both are drawn; the terms take the palette's colours."""
    inks, term = {}, 0
    for key in chosen:
        split, _, rest = key.partition("/")
        if "/" in rest:
            inks[key] = (COLOURS[1 + term % (len(COLOURS) - 1)], _dashes(term // (len(COLOURS) - 1)))
            term += 1
        elif split == "train":
            inks[key] = (INK if rest == "loss" else QUIET, "-")
        else:
            inks[key] = (BLUE if split in ("val", "test") else GREEN, "-")
    return inks


def _dashes(number: int) -> Any:
    """Once the colours are used up: solid, dashed, dotted."""
    return ("-", (0, (4, 1.5)), (0, (1, 1.2)))[number % 3]


def _marks(values: np.ndarray) -> dict[str, Any]:
    """Points where there are so few epochs that a line would hide them (or, with one epoch, not show at all)."""
    return {"marker": "o", "markersize": 3.0} if len(values) <= 12 else {}


def _epoch_axis(axes: Axes, epochs: np.ndarray) -> None:
    from matplotlib.ticker import MaxNLocator

    first, final = int(epochs[0]), int(epochs[-1])
    room = 0.5 if first == final else 0.02 * (final - first)
    axes.set_xlim(first - room, final + room)
    if first == final:
        axes.set_xticks([first])
    else:
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))


def _end_labels(
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
        shown = _fit(name, room - _inches(value, NOTE), NOTE) + value
        _text(figure, left, height, shown, va="center", fontsize=NOTE, color=colour)


# -- calibration ------------------------------------------------------------------------------------------------------------------


def reliability(logits_NK: Tensor, labels_N: Tensor, *, path: Path, bins: int = 15) -> Path | None:
    """How often the network is right when it says it is: accuracy against confidence in equal bins, and how the confidences spread.

    ECE = sum over bins of (share of the images) * |accuracy - mean confidence|; confidence is the largest softmax probability (fp64), a bin
    holds (lower, upper]. Labels below 0 (OOD) are left out. None, and no file, without labelled images.
    """
    import numpy as np
    from matplotlib.ticker import NullLocator

    logits, labels = _array(logits_NK), _array(labels_N)
    keep = (labels >= 0) & np.isfinite(logits).all(1) if len(labels) else np.zeros(0, bool)
    if not keep.any():
        return None
    logits, labels = logits[keep], labels[keep]
    odds = np.exp(logits - logits.max(1, keepdims=True))
    confidence, right = odds.max(1) / odds.sum(1), logits.argmax(1) == labels
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    accuracy = np.bincount(place, right, bins) / np.maximum(count, 1)
    stated = np.bincount(place, confidence, bins) / np.maximum(count, 1)
    ece = float((count * abs(accuracy - stated)).sum() / len(labels))

    side, middle = 2.7, (edges[1:] + edges[:-1]) / 2
    with _canvas(path, WIDTH, 3.7) as figure:
        axes = _axes(figure, 0.6, 0.5, side, side, xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy")
        _text(figure, 0.6, 0.13, "reliability", fontsize=LARGE, fontweight="bold")
        _text(figure, 0.6 + side, 0.15, f"ECE {ece:.3f}", fontsize=LARGE, ha="right")
        used = count > 0
        lower, upper = np.minimum(accuracy, stated)[used], np.maximum(accuracy, stated)[used]
        axes.bar(middle[used], lower, 0.92 / bins, color=BLUE, alpha=0.6, linewidth=0, zorder=2)
        axes.bar(middle[used], upper - lower, 0.92 / bins, bottom=lower, color=VERMILION, alpha=0.5, linewidth=0, zorder=2)
        axes.hlines(accuracy[used], edges[:-1][used], edges[1:][used], color=BLUE, linewidth=2, zorder=4)
        axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.9, linestyle=(0, (3, 2)), zorder=3)
        axes.text(0.03, 0.95, "accuracy", color=BLUE, fontsize=NOTE, va="top")
        axes.text(0.03, 0.89, "gap to the confidence", color=VERMILION, fontsize=NOTE, va="top")

        left, width = 4.15, 3.6
        spread = _axes(figure, left, 0.5, width, side, xlim=(0, 1), xlabel="confidence")
        _text(figure, left, 0.13, "images by confidence", fontsize=LARGE, fontweight="bold")
        number = f"{_thousands(len(labels))} image{'s' * (len(labels) != 1)}"
        _text(figure, left + width, 0.15, number, fontsize=NOTE, color=QUIET, ha="right")
        for chosen, colour, word, height in ((right, BLUE, "right", 0.95), (~right, VERMILION, "wrong", 0.89)):
            counts, steps = np.histogram(confidence[chosen], 2 * bins, (0, 1))
            spread.stairs(counts, steps, fill=True, color=colour, alpha=0.25, linewidth=0)
            spread.stairs(counts, steps, color=colour, linewidth=1.2)
            mean = f", mean {confidence[chosen].mean():.3f}" if chosen.any() else ""
            shown = f"{word} {_thousands(int(chosen.sum()))}{mean}"
            spread.text(0.03, height, shown, transform=spread.transAxes, color=colour, fontsize=NOTE, va="top")
        spread.set_yscale("symlog", linthresh=1)
        spread.set_ylim(0, 12 * max(10, count.max()))
        spread.yaxis.set_major_formatter(lambda value, _: _thousands(round(value)))
        spread.yaxis.set_minor_locator(NullLocator())
    return Path(path)
