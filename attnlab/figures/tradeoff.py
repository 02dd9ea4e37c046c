"""A table's first column against each of its others: what is won, over what it costs. A point a row, whiskers its seeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attnlab.figures.style import COLOURS, INK, LARGE, NOTE, QUIET, SMALL, WIDTH, axes_at, canvas, fit, inches, logarithmic, text_at

if TYPE_CHECKING:
    from pathlib import Path

    from attnlab.tables.model import Table

MANY = 8  # an axis whose largest value is so many times its smallest is logarithmic


def tradeoff(table: Table, *, path: Path) -> Path:
    """One panel a column after the first, which is every panel's height; rows go by their numbers, and are named beside the panels.

    Whiskers are sample standard deviations. A row that lacks a number is in the list alone. ValueError: fewer than two columns, or no row
    with a number in the first and in another.
    """
    first, *others = table.columns
    if not others:
        raise ValueError(f"a picture of a table draws its first column against the others, and {table.name} has one column")
    found = {row: {column: table.cells[row, column] for column in table.columns} for row in table.rows}
    drawn = {row: [c for c in others if None not in (found[row][first].mean, found[row][c].mean)] for row in table.rows}
    if not any(drawn.values()):
        raise ValueError(f"{table.name}: no row has a number in {first} and in another column yet; action=run fills it")
    lines = [f"{number} {row}" for number, row in enumerate(table.rows, 1)]
    listed = min(max(inches(line, NOTE) for line in lines) + 0.2, 2.6)
    left, gap, tall = 0.62, 0.25, max(2.4, 0.17 * len(lines))
    wide = (WIDTH - left - listed - gap * len(others)) / len(others)
    with canvas(path, WIDTH, 0.5 + tall + 0.55) as figure:
        text_at(figure, left, 0.14, fit(table.title, WIDTH - left - 0.2, LARGE), fontsize=LARGE, fontweight="bold")
        for k, column in enumerate(others):
            axes = axes_at(figure, left + k * (wide + gap), 0.5, wide, tall)
            cells = [(n, found[row][column], found[row][first]) for n, row in enumerate(table.rows) if column in drawn[row]]
            for n, x, y in cells:
                colour = COLOURS[n % len(COLOURS)]
                axes.errorbar(x.mean, y.mean, xerr=x.sd, yerr=y.sd, fmt="o", color=colour, markersize=3.2, elinewidth=0.7, capsize=1.5)
                axes.annotate(str(n + 1), (x.mean, y.mean), (3, 3), textcoords="offset points", fontsize=SMALL, color=INK)
            means = [x.mean for _, x, _ in cells]
            if means and min(means) > 0 and max(means) / min(means) >= MANY:
                logarithmic(axes, "x", min(means), max(means))
            axes.set_xlabel(fit(table.metric_of(column).label, wide, SMALL), fontsize=SMALL, labelpad=2)
            if k == 0:
                axes.set_ylabel(table.metric_of(first).label, fontsize=SMALL, labelpad=2)
            else:
                axes.tick_params(labelleft=False)
        for n, line in enumerate(lines):
            shown = fit(line, listed - 0.1, NOTE)
            text_at(figure, WIDTH - listed, 0.5 + 0.17 * n, shown, fontsize=NOTE, color=COLOURS[n % len(COLOURS)])
        seeds = max(cell.n for cell in table.cells.values())
        note = f"mean and sd over {seeds} seeds" if seeds > 1 else "one seed"
        text_at(figure, left, 0.32, f"{note}; axes do not begin at 0", fontsize=SMALL, color=QUIET)
    return path
