"""A filled table as one HTML file that needs nothing else: numbers, verdicts, curves, score histograms, attention pictures and failures.

    write_html(table, Path("maxdropout.html"), outputs=Path("outputs"))

The page asks for nothing from outside (its Content-Security-Policy forbids it), reads without JavaScript, and links to the runs' folders by
relative paths. The runs' files are only read; what cannot be read is left out, with a note. Style and script: page.css, page.js.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from attnlab.config.result import read_result
from attnlab.records.atomic import write_atomic
from attnlab.tables.model import STATUSES, Table
from attnlab.tables.views.html.details import figure, panel
from attnlab.tables.views.html.files import RunFolder, linker, read_folder
from attnlab.tables.views.html.labels import MARKS, VERDICTS, called, code, command_box, plural, verdict_tag, why
from attnlab.tables.views.html.matrix import matrix
from attnlab.tables.views.html.pictures import choose_pictures, shared_pictures

FAILURES_LISTED = 30


def write_html(table: Table, path: Path, *, outputs: Path, read: Callable[[Path], Mapping[str, Any]] | None = None) -> Path:
    """Write the page of `table` to `path`, whole or not at all, and return it.

    outputs: where runs without a named folder would be. read: the result.json of a folder, where somebody has read it already.
    """
    path, outputs, read = Path(path), Path(outputs), read or (lambda folder: read_result(folder).result)
    folders = {key: tuple(read_folder(run, outputs, read) for run in cell.runs) for key, cell in table.cells.items()}
    chosen, left_out = choose_pictures(table, folders)
    link = linker(path)
    panels = {
        key: panel(table.metric_of(key[1]), cell, folders[key], chosen[key], left_out[key], link, outputs)
        for key, cell in table.cells.items()
    }
    top = bar(f"table <span>/</span> {escape(table.name)}")
    parts = [
        f"<header>\n{top}\n<h1>{escape(table.title or table.name)}</h1>\n{about(table)}</header>",
        matrix(table, panels),
        shared(shared_pictures(table, folders), link),
        failures(table, folders, linked=True),
        f"<footer><h2>Footnotes</h2>{footnotes(table, left_out=sum(left_out.values()))}</footer>",
    ]
    return write_atomic(path, document(table.title or table.name, parts, columns=len(table.columns)))


def document(title: str, parts: Sequence[str], *, columns: int) -> str:
    """A whole page with its style and its script."""
    style, script = (Path(__file__).with_name(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    early = 'document.documentElement.classList.add("js")'
    end = f"</main>\n<script>{script}</script>\n</body>\n</html>\n"
    return "\n".join([_head(title, columns, style, early, script), *filter(None, parts), end])


def _head(title: str, columns: int, style: str, *scripts: str) -> str:
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts)
    policy = f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {hashes}; base-uri 'none'; form-action 'none'"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="attnlab">
<title>{escape(title)}</title>
<script>{scripts[0]}</script>
<style>
{style}</style>
</head>
<body>
<main{f' style="--width: {320 + 200 * columns}px"' if columns > 4 else ""}>"""


def bar(where: str) -> str:
    return f"""<div class="bar"><p class="eyebrow">attnlab <span>/</span> {where}</p>
<button type="button" id="theme" class="plain" aria-label="Switch between light and dark">Dark</button></div>"""


def about(table: Table) -> str:
    """What stands between a table's title and its numbers."""
    variant = f"<strong>Not the paper’s own table.</strong> Made with {code(table.variant)}." if table.variant else ""
    return f"""{f'<p class="source">{escape(table.paper)}</p>' if table.paper else ""}
{f'<p class="variant">{variant}</p>' if variant else ""}
<p class="lead">{_summary(table)}</p>
{command_box(table.command)}
"""


def state(table: Table) -> str:
    """`5 of 12 runs finished; 2 failed, 5 missing`."""
    runs = Counter({run.run_id: run.status for cell in table.cells.values() for run in cell.every}.values())  # columns share them
    rest = [f"{runs[status]:,} {called(status, runs[status])}" for status in STATUSES[1:] if runs[status]]
    return f"{runs['finished']:,} of {plural(sum(runs.values()), 'run')} finished" + (f"; {', '.join(rest)}" if rest else "")


def _summary(table: Table) -> str:
    """The state of the table in two sentences."""
    first = f"{state(table)}."
    compared = Counter(cell.verdict for cell in table.cells.values() if cell.paper)
    verdicts = [f'<span class="count">{verdict_tag(v)} {compared[v]}</span>' for v in VERDICTS if compared[v]]
    count = sum(compared.values())
    if not verdicts:
        return f"{first} There are no published values to compare with."
    return f"{first} Against {plural(count, 'published value')}: {', '.join(verdicts)}."


def shared(groups: Sequence[tuple[str, Sequence[tuple]]], link: Callable[[Path], str], *, title: str = "The same images, all rows") -> str:
    """Pictures that are no cell's own."""
    if not groups:
        return ""
    parts = [
        f'{f"<h3>{escape(columns)}</h3>" if columns else ""}<div class="pictures">{"".join(figure(*one, link) for one in pictures)}</div>'
        for columns, pictures in groups
    ]
    return f'<section class="shared"><h2>{title}</h2>{"".join(parts)}</section>'


def failures(table: Table, folders: Mapping[tuple[str, str], Sequence[RunFolder]], *, linked: bool) -> str:
    """Every failure in one place, the same error once. linked: to the cell's details, where the page has them."""
    found: dict[str, list[tuple[str, str, int]]] = {}
    for (row, column), runs in folders.items():
        for one in runs:
            if one.run.status in ("failed", "broken"):
                found.setdefault(why(one.run), []).append((row, column, one.run.seed))
    if not found:
        return ""
    items = []
    for error, cells in list(found.items())[:FAILURES_LISTED]:
        row, column, seed = cells[0]
        name = f"cell-{table.rows.index(row)}-{table.columns.index(column)}"
        more = f" and {len(cells) - 1:,} more" if len(cells) > 1 else ""
        where = escape(f"{row}, {column}, seed {seed}")
        where = f'<a href="#{name}">{where}</a>' if linked else where
        items.append(f"<li>{where}{more}<br>{code(error[:400])}</li>")
    rest = f"<p class=hint>{plural(len(found) - FAILURES_LISTED, 'further error')}.</p>" if len(found) > FAILURES_LISTED else ""
    return f'<section class="failures"><h2>Failures</h2><ul>{"".join(items)}</ul>{rest}</section>'


def footnotes(table: Table, *, left_out: int = 0, more: Sequence[str] = ()) -> str:
    metric = table.metric
    marks = Counter(cell.paper.mark for cell in table.cells.values() if cell.paper)
    meanings = "; ".join(f"{verdict}: {meaning}" for verdict, meaning in VERDICTS.items())
    ruled = any(note.kind == "verdict" for note in table.notes)
    factor = f"{metric.scale:g} × " if metric.scale != 1 else ""
    own = {column: table.own_metrics[column] for column in table.columns if column in table.own_metrics}
    notes = [
        *(note.text for note in table.notes if note.kind != "published"),  # in full below
        f"Each column is a number of its own: {', '.join(f'{column} = {one.key}' for column, one in own.items())}." if own else "",
        f"{metric.label} = {factor}{f'(1 − {metric.key})' if metric.complement else metric.key}, as in result.json.",
        "Mean ± sample standard deviation over finished seeds; 95% t-interval of the mean; differences are ours minus the other’s.",
        f"Against the baseline row ({table.baseline}): a paired t-test over shared seeds." if table.baseline else "",
        f"Published values: {', '.join(f'{count} {MARKS.get(mark, mark)}' for mark, count in marks.items())}; sources under details."
        if marks
        else "",
        f"Verdicts: {meanings}. The rule is in docs/tables.md." if marks and not ruled else "",
        f"Pictures shown are a selection, made smaller; {left_out:,} more are in the runs’ folders." if left_out > 0 else "",
        *(more or ["Links are relative to this file and hold while neither it nor the runs’ folders are moved."]),
    ]
    return f"<ul>{''.join(f'<li>{escape(note)}</li>' for note in notes if note)}</ul>"
