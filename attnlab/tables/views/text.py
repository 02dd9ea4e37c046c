"""A table as text for a terminal, Markdown and CSV (full precision). LaTeX: latex.py; HTML: html/."""

import contextlib
import csv
import io
import re
import textwrap
from collections import Counter

from attnlab.tables.model import STATUSES, Cell, Paper, RunOfCell, Table
from attnlab.terminal import visible

SIGNS = {"holds": "=", "differs": "≠", "too few seeds": "?", "other data": "°", "not published": "", "missing": ""}
DIRECTIONS = {"max": "higher is better", "min": "lower is better"}
COLOURS = {"holds": "green", "differs": "red", "too few seeds": "yellow", "other data": "cyan"}
NARROWEST = 24  # characters of a cell in the terminal
HOLD = "\u00a0"  # a blank at which textwrap breaks no line


def number(value: float | None, digits: int, *, sign: bool = False) -> str:
    """`4.72`, `+0.03`, `701,178`, or a dash for None; a rounded zero has no minus."""
    if value is None:
        return "-"
    text = f"{value:{'+' if sign else ''}{'' if digits else ','}.{digits}f}"
    return text.replace("-", "+" if sign else "") if re.fullmatch(r"-0(\.0+)?", text) else text


def measured(cell: Cell, table: Table) -> str:
    """`4.72 ± 0.21 (5)`; `(3 of 5)` while seeds are missing; empty without a value."""
    if cell.mean is None:
        return ""
    digits, asked = table.metric_of(cell.column).digits, len(cell.runs)
    spread = f" ± {number(cell.sd, digits)}" if cell.sd is not None else ""
    return f"{number(cell.mean, digits)}{spread} ({cell.n}{f' of {asked}' if cell.n < asked else ''})"


def states(cell: Cell) -> str:
    """What is not finished: `1 failed, 2 missing`; or a finished run that lacks the metric."""
    counts = Counter(run.status for run in cell.runs if run.value is None)
    names = {status: status for status in STATUSES} | {"finished": "without the metric"}
    return ", ".join(f"{counts[status]} {names[status]}" for status in STATUSES if counts[status])


def published(paper: Paper, digits: int) -> str:
    spread = f" ± {number(paper.sd, digits)}" if paper.sd is not None else ""
    return f"{number(paper.value, digits)}{spread} [{paper.mark}]"


def lines_of(cell: Cell, table: Table) -> list[tuple[str, str]]:
    """What a cell shows, a line each, and its kind: value, interval, state, paper, verdict, paired."""
    digits, lines = table.metric_of(cell.column).digits, []
    if cell.mean is not None:
        lines.append((measured(cell, table), "value"))
    if cell.interval:
        lines.append((f"95% {number(cell.interval[0], digits)} to {number(cell.interval[1], digits)}", "interval"))
    if states(cell):
        lines.append((states(cell), "state"))
    if cell.paper:
        lines.append((f"paper {published(cell.paper, digits)}", "paper"))
    if cell.difference is not None:
        lines.append((f"{number(cell.difference, digits, sign=True)} {SIGNS[cell.verdict]} {cell.verdict}".strip(), "verdict"))
    if cell.paired:
        lines.append((_paired(cell, table), "paired"))
    return lines or [("", "value")]


def _paired(cell: Cell, table: Table) -> str:
    chance = "" if cell.paired.p is None else f", p {cell.paired.p:.3f}" if cell.paired.p >= 0.001 else ", p <.001"
    return f"to base {number(cell.paired.difference, table.metric_of(cell.column).digits, sign=True)}{chance}"


def heading(table: Table) -> str:
    return " · ".join(part for part in (table.title, table.paper, table.metric.label) if part)


def better(table: Table) -> str:
    """Of all columns in one word, or column by column."""
    found = {column: DIRECTIONS[table.metric_of(column).direction] for column in table.columns}
    if len(set(found.values())) == 1:
        return next(iter(found.values()))
    lists = {word: ", ".join(column for column, one in found.items() if one == word) for word in DIRECTIONS.values()}
    return "; ".join(f"{columns}: {word}" for word, columns in lists.items())


def failures(table: Table) -> list[str]:
    """One line an error of runs that failed or cannot be read: the first with what to read, and how many more there are."""
    found: dict[tuple[str, str], dict[str, tuple[str, RunOfCell]]] = {}
    for (row, column), cell in table.cells.items():
        for run in cell.runs:
            if run.status in ("failed", "broken"):
                error = (run.error or "no message").strip().partition("\n")[0]
                found.setdefault((run.status, error), {}).setdefault(run.run_id, (f"{row}, {column}, seed {run.seed}", run))
    lines = []
    for (status, error), runs in found.items():
        cell, run = next(iter(runs.values()))
        more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
        file = f"; {run.folder / ('train.log' if status == 'failed' else 'result.json')}" if run.folder else ""
        lines.append(f"{status}: {cell}{more}: {error}{file}")
    return lines


# ---- terminal -----------------------------------------------------------------------------------------------------------------------


def to_text(table: Table, *, width: int = 80, color: bool = False) -> str:
    """For a terminal: as many columns beside each other as `width` allows, the others below."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    console = Console(file=io.StringIO(), width=width, force_terminal=color, no_color=not color, color_system="standard" if color else None)
    console.print(Text(visible(heading(table)), style="bold"))
    if table.variant:
        console.print(Text(visible(f"variant: {table.variant}"), style="cyan"))
    label = min(max((len(word) for row in table.rows for word in (row, "(baseline)")), default=0), max(12, width // 4))
    room = width - label - 4
    beside = max(1, min(room // (NARROWEST + 2), len(table.columns)))
    shown = [*table.columns, *(line for cell in table.cells.values() for line, _ in lines_of(cell, table))]
    wide = max(8, min(room // beside - 2, max(map(len, shown))))  # one width for all, so that columns stand below each other
    for start in range(0, len(table.columns), beside):
        columns = table.columns[start : start + beside]
        grid = Grid(box=SIMPLE_HEAD, pad_edge=False, show_lines=False)
        grid.add_column("", width=label, overflow="fold")
        for column in columns:
            grid.add_column(Text(visible(column)), width=wide, overflow="fold")
        for row in table.rows:
            name = Text(visible(row), style="bold")
            if row == table.baseline:
                name.append("\n(baseline)", style="dim")
            grid.add_row(
                name, *(_styled(table.cells[row, column], table, Text, wide) for column in columns), end_section=row == table.rows[-1]
            )
            if row != table.rows[-1]:
                grid.add_row()
        console.print(grid)
    console.print(Text(better(table), style="dim"))
    for note in table.notes:
        console.print(
            Text("\n".join(textwrap.wrap(visible(note.text), width, subsequent_indent="  ", break_on_hyphens=False)), style="dim")
        )
    for line in failures(table):
        console.print(Text(visible(line), style="red"), soft_wrap=True)
    return "\n".join(line.rstrip() for line in console.file.getvalue().splitlines()) + "\n"


def _styled(cell: Cell, table: Table, text: type, wide: int) -> object:
    """A cell of the terminal, so many characters wide."""
    styles = {"value": "bold", "interval": "dim", "state": "yellow", "paper": "", "verdict": COLOURS.get(cell.verdict, ""), "paired": ""}
    shown = text()
    for index, (line, kind) in enumerate(lines_of(cell, table)):
        line = visible(line)
        if kind == "state":  # broken after a comma and nowhere else
            held = line.replace(" ", HOLD).replace(f",{HOLD}", ", ")
            line = "\n".join(textwrap.wrap(held, wide)).replace(HOLD, " ")
        shown.append(("\n" if index else "") + line, style=styles[kind])
    return shown


# ---- Markdown -----------------------------------------------------------------------------------------------------------------------


def to_markdown(table: Table) -> str:
    """GitHub's Markdown: one table, the notes as a list."""
    rows = [["", *map(_md, table.columns)], ["---"] * (len(table.columns) + 1)]
    for row in table.rows:
        name = f"**{_md(row)}**" + (" (baseline)" if row == table.baseline else "")
        cells = (lines_of(table.cells[row, column], table) for column in table.columns)
        rows.append(
            [name, *("<br>".join(f"**{_md(text)}**" if kind == "value" and text else _md(text) for text, kind in lines) for lines in cells)]
        )
    head = f"### {_md(heading(table))}\n\n"
    if table.variant:
        head += f"Variant: `{visible(table.variant)}`\n\n"
    body = "\n".join(f"| {' | '.join(cells)} |" for cells in rows)
    notes = [better(table), *(note.text for note in table.notes), *failures(table), f"`{visible(table.command)}`"]
    return head + body + "\n\n" + "\n".join(f"- {note if note.startswith('`') else _md(note)}" for note in notes) + "\n"


def _md(text: str) -> str:
    return re.sub(r"([\\|*_<>`\[\]])", r"\\\1", visible(text).replace("\n", " "))


# ---- CSV ----------------------------------------------------------------------------------------------------------------------------


def to_csv(table: Table) -> str:
    """One row a cell, full precision; text that a spreadsheet would compute has a ' before it.

    `values` and `runs` are `seed:value` and `seed:run_id:status`, separated by blanks."""
    names = [
        "table", "variant", "row", "column", "metric", "n", "mean", "sd", "low", "high", "paper", "paper_sd", "paper_mark", "paper_source",
        "difference", "verdict", "baseline", "paired_n", "paired_difference", "paired_low", "paired_high", "paired_p", "values", "runs",
        "chosen",
    ]  # fmt: skip
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for row in table.rows:
        for column in table.columns:
            cell = table.cells[row, column]
            paper, paired = cell.paper, cell.paired
            published = [paper.value, paper.sd, paper.mark, paper.source] if paper else [None] * 4
            beside = [paired.n, paired.difference, *(paired.interval or (None, None)), paired.p] if paired else [None] * 5
            values = " ".join(f"{run.seed}:{run.value!r}" for run in cell.runs if run.value is not None)
            runs = " ".join(f"{run.seed}:{run.run_id}:{run.status}" for run in cell.runs)
            writer.writerow(map(_csv, [
                table.name, table.variant, row, column, table.metric_of(column).label, cell.n, cell.mean, cell.sd,
                *(cell.interval or (None, None)),
                *published, cell.difference, cell.verdict, table.baseline, *beside, values, runs, " ".join(cell.chosen),
            ]))  # fmt: skip
    return buffer.getvalue()


def _csv(value: object) -> object:
    """A cell that a spreadsheet shows and does not compute: `=`, `+`, `-` and `@` begin a formula there, unless it is a number."""
    if not isinstance(value, str):
        return value
    with contextlib.suppress(ValueError):
        float(value)
        return value
    text = visible(value)
    return f"'{text}" if text.lstrip().startswith(("=", "+", "-", "@")) else text
