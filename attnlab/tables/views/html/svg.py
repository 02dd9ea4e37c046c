"""Small vector drawings for the page of a table: learning curves with a band over seeds, and a strip of seeds beside the published value.

Pure text, nothing beyond the standard library. Colours come from the page's classes (`s-train`, `s-val`, `s-test`, `band`, `grid` ...), so
a drawing follows light and dark. Sizes are CSS pixels at the natural size.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

MAX_POINTS = 120  # of one line: more would not be seen at this size
WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 40, 78, 12, 26


@dataclass(frozen=True)
class Band:
    """One curve: for every epoch the mean over seeds, the sample standard deviation (0 for one seed); and how many seeds there are."""

    name: str  # train, val or test
    epochs: tuple[int, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    seeds: int


def band(name: str, runs: Sequence[Mapping[int, float]]) -> Band | None:
    """The mean and spread over seeds at MAX_POINTS epochs at most; values that are no numbers are left out. None where nothing is left."""
    runs = [{epoch: value for epoch, value in run.items() if math.isfinite(value)} for run in runs]
    epochs = _thinned(sorted({epoch for run in runs for epoch in run}))
    if not epochs:
        return None
    means, deviations = [], []
    for epoch in epochs:
        values = [run[epoch] for run in runs if epoch in run]
        means.append(math.fsum(values) / len(values))
        # the statistics module works in fractions, which is a hundred times slower than a drawing wants
        squares = math.fsum((value - means[-1]) ** 2 for value in values)
        deviations.append(math.sqrt(squares / (len(values) - 1)) if len(values) > 1 else 0.0)
    return Band(name, tuple(epochs), tuple(means), tuple(deviations), sum(map(bool, runs)))


def ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About `count` round numbers inside [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(n * step, 12) for n in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """1, 2, 5, 10 ... inside [low, high]; powers of ten alone where that would be many."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if high / low > 1000 else (1, 3) if high / low > 20 else (1, 2, 5)
    levels = [float(f"{factor}e{power}") for power in powers for factor in factors]
    return [level for level in levels if low <= level <= high]


def spans_decades(bands: Sequence[Band]) -> bool:
    """Whether the values are better drawn over a logarithm: all above 0, the largest more than 12 times the smallest."""
    means = [mean for one in bands for mean in one.means]
    return bool(means) and min(means) > 0 and max(means) > 12 * min(means)


def curves(bands: Sequence[Band], *, title: str, digits: int, best: str, log: bool = False) -> str:
    """Lines over epochs with bands of one standard deviation; a band of one epoch is a point with a bar. Empty text where there is nothing.

    title: what the values are; digits: of the labels at the lines' ends; best: `max` or `min`, only in the description; log: a
    logarithmic scale, which wants values above 0.
    """
    if not bands:
        return ""
    means = [mean for one in bands for mean in one.means]
    low = min(mean - sd for one in bands for mean, sd in zip(one.means, one.deviations, strict=True))
    high = max(mean + sd for one in bands for mean, sd in zip(one.means, one.deviations, strict=True))
    if log:
        low, high = min(means) / 1.3, high * 1.1  # a band that reaches 0 leaves the picture below
    else:
        pad = 0.06 * (high - low) or max(abs(high), 1e-9) * 0.05
        low, high = low - pad, high + pad
    scale = math.log10 if log else float
    first, last = min(one.epochs[0] for one in bands), max(one.epochs[-1] for one in bands)
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def x(epoch: float) -> float:
        return LEFT + (right - LEFT) * (epoch - first) / (last - first) if last > first else (LEFT + right) / 2

    def y(value: float) -> float:
        return bottom - (bottom - TOP) * (scale(max(value, low)) - scale(low)) / (scale(high) - scale(low))

    parts = []
    levels = log_ticks(low, high) if log else ticks(low, high)
    shown = max((len(f"{level:.6f}".rstrip("0").partition(".")[2]) for level in levels), default=0)
    for level in levels:
        parts.append(f'<path class="grid" d="M{LEFT} {y(level):.1f}H{right}"/>')
        text = _minus(f"{level:g}" if log else f"{level:.{shown}f}")
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y(level) + 3.5:.1f}" text-anchor="end">{text}</text>')
    epochs = list(range(first, last + 1)) if last - first < 9 else [round(tick) for tick in ticks(first, last) if tick == round(tick)]
    room = 0.6 * (epochs[1] - epochs[0]) if len(epochs) > 1 else 1  # the two ends are always labelled, a round number close to one is not
    for epoch in sorted({first, last} | {epoch for epoch in epochs if first + room <= epoch <= last - room}):
        parts.append(f'<text class="tick" x="{x(epoch):.1f}" y="{HEIGHT - 9}" text-anchor="middle">{epoch}</text>')
    ends = []
    for one in bands:
        points = list(zip(one.epochs, one.means, one.deviations, strict=True))
        if len(points) == 1:
            epoch, mean, sd = points[0]
            if sd:
                parts.append(f'<path class="bar s-{one.name}" d="M{x(epoch):.1f} {y(mean - sd):.1f}V{y(mean + sd):.1f}"/>')
            parts.append(f'<circle class="dot s-{one.name}" cx="{x(epoch):.1f}" cy="{y(mean):.1f}" r="3.2"/>')
        else:
            if any(sd for _, _, sd in points):
                upper = [f"{x(epoch):.1f} {y(mean + sd):.1f}" for epoch, mean, sd in points]
                lower = [f"{x(epoch):.1f} {y(mean - sd):.1f}" for epoch, mean, sd in reversed(points)]
                parts.append(f'<path class="band s-{one.name}" d="M{"L".join(upper + lower)}Z"/>')
            line = "L".join(f"{x(epoch):.1f} {y(mean):.1f}" for epoch, mean, _ in points)
            parts.append(f'<path class="line s-{one.name}" d="M{line}"/>')
        ends.append((y(one.means[-1]), x(one.epochs[-1]), one))
    for at, (_, end, one) in zip(_apart([end[0] for end in ends], 13.0, TOP, bottom), ends, strict=True):
        value = _minus(f"{one.means[-1]:.{digits}f}")
        parts.append(f'<text class="end s-{one.name}" x="{max(end, right) + 8:.1f}" y="{at + 3.8:.1f}">{escape(one.name)} {value}</text>')
    ends = ", ".join(f"{one.name} {one.means[-1]:.{digits}f} at epoch {one.epochs[-1]}" for one in bands)
    label = escape(f"{title} over epochs, mean over seeds ({'higher' if best == 'max' else 'lower'} is better): {ends}")
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    return f'<svg class="curves" {size} role="img" aria-label="{label}">{"".join(parts)}</svg>'


def strip(
    values: Sequence[float] = (),
    *,
    mean: float | None = None,
    interval: tuple[float, float] | None = None,
    paper: float | None = None,
    low: float,
    high: float,
    width: int = 132,
) -> str:
    """Every seed a dot, the interval of the mean a line, the published value a diamond; [low, high] is shared by the table's column."""
    height, edge = 14, 5
    middle = height / 2

    def x(value: float) -> float:
        return edge + (width - 2 * edge) * (value - low) / (high - low) if high > low else width / 2

    parts = [f'<path class="axis" d="M{edge} {middle}H{width - edge}"/>']
    if interval:
        start, end = (min(max(x(value), 0), width) for value in interval)
        parts.append(f'<path class="ci" d="M{start:.1f} {middle}H{end:.1f}"/>')
    if paper is not None:
        parts.append(f'<path class="paper" d="M{x(paper):.1f} {middle - 4.6}l4.6 4.6l-4.6 4.6l-4.6 -4.6Z"/>')
    if mean is not None:
        parts.append(f'<path class="mean" d="M{x(mean):.1f} {middle - 5.5}v11"/>')
    parts += [f'<circle class="seed" cx="{x(value):.1f}" cy="{middle}" r="2.6"/>' for value in values[:50]]
    return f'<svg class="strip" viewBox="0 0 {width} {height}" width="{width}" height="{height}" aria-hidden="true">{"".join(parts)}</svg>'


def _thinned(points: list) -> list:
    """At most MAX_POINTS of them, evenly chosen, the first and the last among them."""
    if len(points) <= MAX_POINTS:
        return points
    return [points[round(n * (len(points) - 1) / (MAX_POINTS - 1))] for n in range(MAX_POINTS)]


def _apart(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places for labels near `wanted`, no two nearer than `gap`, inside [low, high] where they fit."""
    order = sorted(range(len(wanted)), key=lambda n: wanted[n])
    placed = [0.0] * len(wanted)
    floor = low
    for n in order:
        placed[n] = floor = max(wanted[n], floor)
        floor += gap
    ceiling = high
    for n in reversed(order):
        placed[n] = min(placed[n], ceiling)
        ceiling = placed[n] - gap
    return placed


def _minus(text: str) -> str:
    return text.replace("-", "−")
