"""A metric by what runs differ in: bars with their seeds as dots, or lines where the first key is a number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from attnlab.figures.style import COLOURS, INK, LARGE, NOTE, QUIET, SMALL, WIDTH, axes_at, canvas, dash, fit, inches, logarithmic, text_at

Line = tuple[Sequence[str], Sequence[float]]  # what the runs agree in, and the metric run by run


def grouped_runs(rows: Sequence[Line], *, keys: Sequence[str], metric: str, path: Path) -> Path:
    """rows: as they are to stand, of two keys at most; the second key has the colours. Bars are means, dots runs; the axis of bars begins
    where the dots do, as of accuracies only the ends differ. Where every value of the first key is a number, lines through means over it,
    with the sample standard deviation as whiskers. ValueError: no row, or more than two keys."""
    if not rows or not 1 <= len(keys) <= 2:
        raise ValueError(f"a picture takes runs by one key or two, got {len(keys)} keys and {len(rows)} rows")
    outer = list(dict.fromkeys(key[0] for key, _ in rows))
    inner = list(dict.fromkeys(key[1] if len(keys) > 1 else "" for key, _ in rows))
    table = {(key[0], key[1] if len(keys) > 1 else ""): list(values) for key, values in rows}
    numbers = [_number(name) for name in outer]
    draw = _lines if len(outer) > 1 and None not in numbers else _bars
    names = 0.0 if len(keys) < 2 else max(inches(name, NOTE) for name in (*inner, keys[1])) + 0.35
    left, right, tall = 0.62, 0.15 + min(names, 2.4), 2.5
    with canvas(path, WIDTH, 0.5 + tall + 0.55) as figure:
        axes = axes_at(figure, left, 0.5, WIDTH - left - right, tall)
        text_at(figure, left, 0.14, f"{metric} by {' and '.join(keys)}", fontsize=LARGE, fontweight="bold")
        if len(keys) > 1:
            text_at(figure, WIDTH - right + 0.12, 0.5, keys[1], fontsize=SMALL, color=QUIET)
            for i, name in enumerate(inner):
                shown = fit(name, right - 0.2, NOTE)
                text_at(figure, WIDTH - right + 0.12, 0.68 + 0.17 * i, shown, fontsize=NOTE, color=COLOURS[i % len(COLOURS)])
        draw(axes, table, outer, inner)
        axes.set_xlabel(keys[0], fontsize=SMALL, labelpad=2)
        most = max(len(values) for values in table.values())
        cut = draw is _bars and axes.get_ylim()[0] > 0
        note = ("mean" if draw is _bars else "mean and sd") + (f" over up to {most} runs, each a dot" if most > 1 else " of one run each")
        note += "; the axis does not begin at 0" if cut else ""
        text_at(figure, WIDTH - right, 0.32, note, fontsize=SMALL, color=QUIET, ha="right")
    return path


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _bars(axes, table, outer, inner) -> None:
    width = 0.8 / len(inner)
    everything = [value for values in table.values() for value in values]
    low, high = min(everything), max(everything)
    room = 0.12 * (high - low) or 0.05 * abs(high) or 1.0
    bottom = 0.0 if 0 <= low < 0.3 * high else low - 1.5 * room
    axes.set_ylim(bottom, high + room)
    for i, name in enumerate(outer):
        for j, kind in enumerate(inner):
            if values := table.get((name, kind)):
                x = i + (j - (len(inner) - 1) / 2) * width
                mean = sum(values) / len(values)
                axes.bar(x, mean - bottom, width * 0.86, bottom=bottom, color=COLOURS[j % len(COLOURS)], alpha=0.45, linewidth=0)
                spread = [x + width * 0.5 * ((k + 0.5) / len(values) - 0.5) for k in range(len(values))]
                axes.plot(spread, values, "o", color=INK, markersize=3.2, markeredgewidth=0, alpha=0.85)
                axes.text(x, high + room, f"{mean:.3f}", ha="center", va="top", fontsize=SMALL, color=QUIET)
    axes.set_xticks(range(len(outer)), [fit(name, 6.4 / len(outer), SMALL) for name in outer])
    axes.set_xlim(-0.6, len(outer) - 0.4)
    axes.grid(axis="x", visible=False)


def _lines(axes, table, outer, inner) -> None:
    import statistics

    for j, kind in enumerate(inner):
        points = sorted((float(name), table[name, kind]) for name in outer if (name, kind) in table)
        xs, means = [x for x, _ in points], [statistics.fmean(values) for _, values in points]
        sds = [statistics.stdev(values) if len(values) > 1 else 0.0 for _, values in points]
        colour = COLOURS[j % len(COLOURS)]
        axes.errorbar(xs, means, yerr=sds, color=colour, linestyle=dash(j // len(COLOURS)), linewidth=1.4, elinewidth=0.8, capsize=2)
        for x, values in points:
            axes.plot([x] * len(values), values, "o", color=colour, markersize=3.2, markeredgewidth=0, alpha=0.6)
    numbers = sorted({float(name) for name in outer})
    if numbers[0] > 0 and numbers[-1] / numbers[0] >= 32:
        logarithmic(axes, "x", numbers[0], numbers[-1])
    if len(numbers) <= 10:
        from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

        axes.xaxis.set_major_locator(FixedLocator(numbers))
        axes.xaxis.set_major_formatter(FixedFormatter([f"{number:g}" for number in numbers]))
        axes.xaxis.set_minor_locator(NullLocator())
