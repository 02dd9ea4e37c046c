"""A table's rows against its baseline: paired differences with their intervals, a row each (a forest plot)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attnlab.figures.style import BLUE, INK, LARGE, NOTE, QUIET, SMALL, VERMILION, WIDTH, axes_at, canvas, fit, inches, text_at

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from attnlab.tables.model import Cell, Metric, Table

SHOWN = 0.8  # of the intervals of a panel lie wholly inside its axis; what lies outside ends in an arrow
STEP = 0.17  # inches between rows


def forest(table: Table, *, path: Path) -> Path:
    """One panel a column in which differences have an interval; rows as the table has them (`sort`), less those without a difference.

    Blue: better than the baseline beyond the interval; red: worse; grey: undecided. The intervals are not corrected for the number of rows;
    an arrow ends one that goes on beyond the axis.
    ValueError: the table has no baseline, or no row with an interval.
    """
    if table.baseline is None:
        raise ValueError(f"format=forest draws differences to a baseline, and {table.name} has none")
    cells = {key: cell for key, cell in table.cells.items() if cell.paired is not None and cell.paired.interval is not None}
    columns = [column for column in table.columns if any(key[1] == column for key in cells)]
    rows = [row for row in table.rows if any(key[0] == row for key in cells)]
    if not rows:
        raise ValueError(f"{table.name}: no row has two seeds in common with {table.baseline} yet; action=run fills it")
    listed = min(max(inches(row, NOTE) for row in rows) + 0.2, 2.2)
    gap, top, tall = 0.18, 0.75, STEP * (len(rows) + 0.6)
    wide = (WIDTH - listed - 0.1 - gap * len(columns)) / len(columns)
    with canvas(path, WIDTH, top + tall + 0.4) as figure:
        text_at(figure, 0.1, 0.14, fit(table.title, WIDTH - 0.2, LARGE), fontsize=LARGE, fontweight="bold")
        seeds = max(cell.paired.n for cell in cells.values())
        note = f"difference to {table.baseline}: mean and 95% interval of {seeds} paired seeds, not corrected for the number of rows"
        text_at(
            figure, 0.1, 0.33, fit(f"{note}; blue: better, red: worse, grey: undecided", WIDTH - 0.2, SMALL), fontsize=SMALL, color=QUIET
        )
        for n, row in enumerate(rows):
            text_at(
                figure, listed, top + STEP * (n + 0.8), fit(row, listed - 0.15, NOTE), fontsize=NOTE, color=INK, ha="right", va="center"
            )
        for k, column in enumerate(columns):
            axes = axes_at(figure, listed + 0.1 + k * (wide + gap), top, wide, tall)
            axes.set(xlim=_limits([cells[row, column] for row in rows if (row, column) in cells]), ylim=(len(rows) - 0.2, -0.8))
            axes.axvline(0, color=INK, linewidth=0.7)
            axes.tick_params(labelleft=False)
            axes.grid(axis="y", visible=False)
            axes.set_title(fit(table.metric_of(column).label, wide, SMALL), fontsize=SMALL, color=INK, pad=4)
            for n, row in enumerate(rows):
                if (row, column) in cells:
                    _draw(axes, n, cells[row, column], table.metric_of(column))
    return path


def _limits(cells: Sequence[Cell]) -> tuple[float, float]:
    """An axis with 0 in it that holds the SHOWN share of the intervals: one seed that went astray makes no picture unreadable."""
    lows, highs = sorted(cell.paired.interval[0] for cell in cells), sorted(cell.paired.interval[1] for cell in cells)
    inside = math.ceil((1 - SHOWN) / 2 * len(cells)) if len(cells) > 4 else 0
    low, high = min(0.0, lows[inside]), max(0.0, highs[-1 - inside])
    room = 0.06 * (high - low) or 1.0
    return low - room, high + room


def _draw(axes: object, n: int, cell: Cell, metric: Metric) -> None:
    (low, high), middle = cell.paired.interval, cell.paired.difference
    better, worse = (low > 0, high < 0) if metric.direction == "max" else (high < 0, low > 0)
    colour = BLUE if better else VERMILION if worse else QUIET
    left, right = axes.get_xlim()
    axes.plot([max(low, left), min(high, right)], [n, n], color=colour, linewidth=1.1, alpha=0.75, solid_capstyle="butt")
    if left <= middle <= right:
        axes.plot([middle], [n], "o", color=colour, markersize=3.4)
    for end, beyond, marker in ((left, low < left, "<"), (right, high > right, ">")):
        if beyond:
            axes.plot([end], [n], marker, color=colour, markersize=3.4, clip_on=False)
