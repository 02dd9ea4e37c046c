"""The page's table: a cell with its mean, a strip of its seeds, the published value and the verdict; below a row what opens under it."""

from collections import Counter
from collections.abc import Mapping
from html import escape

from attnlab.tables.model import STATUSES, Table
from attnlab.tables.views.html.labels import called, number, p_value, plural, span, verdict_tag
from attnlab.tables.views.html.svg import strip
from attnlab.tables.views.text import better


def matrix(table: Table, panels: Mapping[tuple[str, str], str], *, strips: bool = True) -> str:
    """The table, with `panels`: what opens under each cell, if anything does. strips: with every seed a dot."""
    scales = {column: _scale(table, column) for column in table.columns}
    head = "".join(
        f'<th scope="col" role="columnheader" aria-sort="none"><button type="button" class="sort" data-column="{n}" '
        f'data-better="{direction}">{escape(label)}</button></th>\n'
        for n, (label, direction) in enumerate(
            [("Row", "min"), *((one, table.metric_of(one).direction) for one in table.columns)], start=-1
        )
    )
    bodies = []
    for r, row in enumerate(table.rows):
        cells = "".join(
            _cell(table, row, column, f"cell-{r}-{c}" if (row, column) in panels else "", scales[column] if strips else None)
            for c, column in enumerate(table.columns)
        )
        details = "".join(
            f'<section class="panel" id="cell-{r}-{c}" aria-label="{escape(f"{row}, {column}")}">{panels[row, column]}</section>'
            for c, column in enumerate(table.columns)
            if (row, column) in panels
        )
        below = f'<tr role="row" class="detail"><td role="cell" colspan="{len(table.columns) + 1}">{details}</td></tr>'
        base = row == table.baseline
        tag = ' <span class="tag">baseline</span>' if base else ""
        bodies.append(
            f'<tbody role="rowgroup" data-order="{r}" data-name="{escape(row.lower())}"{" class=baseline" if base else ""}>'
            f'<tr role="row"><th scope="row" role="rowheader"><span class="name">{escape(row)}</span>{tag}</th>{cells}</tr>'
            f"{below if details else ''}</tbody>"
        )
    return f"""<section class="results" aria-label="Results">
<div class="legend"><p><strong>{escape(table.metric.label)}</strong>, {escape(better(table))}</p>
<p class="key">{_key(any(cell.paper for cell in table.cells.values())) if strips else ""}</p>
{'<button type="button" class="plain everything">Open all</button>' if panels else ""}</div>
<div class="scroll" role="region" aria-label="The table" tabindex="0">
<table role="table" data-better="{table.metric.direction}" style="--columns: {len(table.columns)}">
<thead role="rowgroup"><tr role="row">{head}</tr></thead>
{"".join(bodies)}
</table>
</div>
<p class="unseen" role="status"></p>
</section>"""


def _key(papers: bool) -> str:
    """What the marks of a strip mean."""
    drawings = {
        "one seed": strip([1.0], low=0, high=2, width=40),
        "mean, 95% interval": strip(mean=1.0, interval=(0.2, 1.8), low=0, high=2, width=40),
    } | ({"paper": strip(paper=1.0, low=0, high=2, width=40)} if papers else {})
    return "".join(f"<span>{drawing} {word}</span>" for word, drawing in drawings.items())


def _scale(table: Table, column: str) -> tuple[float, float]:
    """One scale for a column: its seeds' values and the published ones."""
    values = []
    for (_, name), cell in table.cells.items():
        if name == column:
            values += [run.value for run in cell.runs if run.value is not None]
            values += [cell.paper.value] if cell.paper else []
    if not values:
        return 0.0, 0.0
    pad = 0.06 * (max(values) - min(values))
    return min(values) - pad, max(values) + pad


def _cell(table: Table, row: str, column: str, name: str, scale: tuple[float, float] | None) -> str:
    """name: of what opens under it, if anything does; scale: of its strip, if it has one."""
    cell, digits = table.cells.get((row, column)), table.metric_of(column).digits
    label = f'data-label="{escape(column)}"'
    if cell is None:
        return f'<td role="cell" class="none" {label}>–</td>'
    seeds = Counter(run.status for run in cell.runs)
    lines = []
    if cell.mean is not None:
        sd = f' <span class="sd">± {number(cell.sd, digits)}</span>' if cell.sd is not None else ""
        lines.append(f'<div class="value"><span class="mean">{number(cell.mean, digits)}</span>{sd}</div>')
        values = [run.value for run in cell.runs if run.value is not None and run.status == "finished"]
        paper = cell.paper.value if cell.paper else None
        if scale:
            lines.append(strip(values, mean=cell.mean, interval=cell.interval, paper=paper, low=scale[0], high=scale[1]))
        interval = span(cell.interval, digits)
        lines.append(f'<div class="small"><span class="p">n = {cell.n}</span> <span class="p">{interval}</span></div>')
    else:
        status = next(
            (status for status in ("running", "failed", "broken", "interrupted", "halted", "missing") if seeds[status]), "missing"
        )
        lines.append(f'<div class="value none st-{status}">{called(status)}</div>')
    unfinished = [status for status in STATUSES[1:] if seeds[status]]
    if rest := [f'<span class="st-{status}">{seeds[status]} {called(status, seeds[status])}</span>' for status in unfinished]:
        alone = cell.mean is None and len(rest) == 1
        lines.append(f'<div class="small seeds">{plural(len(cell.runs), "seed") if alone else ", ".join(rest)}</div>')
    verdict = verdict_tag(cell.verdict) if cell.verdict not in ("missing", "not published") else ""
    if cell.paper:
        difference = f"<b>{number(cell.difference, digits, sign=True)}</b>" if cell.difference is not None else ""
        lines.append(f'<div class="small">paper {number(cell.paper.value, digits)} {difference} {verdict}</div>')
    elif verdict:
        lines.append(f'<div class="small">{verdict}</div>')
    if cell.paired:
        p = f', <span class="p">{p_value(cell.paired.p)}</span>' if cell.paired.p is not None else ""
        lines.append(f'<div class="small">baseline <b>{number(cell.paired.difference, digits, sign=True)}</b>{p}</div>')
    if name:
        lines.append(
            f'<button type="button" class="open" aria-expanded="false" aria-controls="{name}" '
            f'aria-label="Details of {escape(f"{row}, {column}")}">details</button>'
        )
    value = f' data-value="{cell.mean!r}"' if cell.mean is not None else ""
    return f'<td role="cell" {label}{value}>{"".join(lines)}</td>'
