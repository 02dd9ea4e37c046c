"""A table as LaTeX with booktabs: ours, the published value and the difference beside each other."""

import re
from collections.abc import Sequence

from attnlab.tables.model import Cell, Table
from attnlab.tables.views.text import better, heading, measured, number, states

ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}", "±": r"$\pm$",
    "≠": r"$\neq$", "°": r"$^\circ$", "·": r"$\cdot$", "→": r"$\rightarrow$", "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$", "\n": " ",
    "[": "{[}", "]": "{]}", "*": "{*}", "–": "--", "—": "---", "α": r"$\alpha$", "λ": r"$\lambda$", "σ": r"$\sigma$", "’": "'",
}  # fmt: skip
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]+")  # ends a line, and with it a comment
LATEX_SIGNS = {"holds": "=", "differs": r"\neq", "too few seeds": "?", "other data": r"\circ"}


def latex(text: str) -> str:
    """Text that LaTeX prints as it is; a character that it does not know in its default encoding becomes a question mark."""
    text = CONTROL.sub(" ", text)
    return "".join(ESCAPES.get(letter, letter if letter.isascii() or letter in "äöüÄÖÜßéèêàáâçñóíúøåØÅ" else "?") for letter in text)


def to_latex(table: Table, *, details: Sequence[str] = ()) -> str:
    """A `table` environment for \\usepackage{booktabs,graphicx} and \\usepackage[T1]{fontenc}: ours, the paper's, the difference.

    The best of ours in each column is bold. A table wider than the line is scaled down to it. details: `interval` (95%, of the mean) and
    `p` (of the paired difference to the baseline row), in a small line beneath each row.
    """
    has_paper = [any(table.cells[row, column].paper for row in table.rows) for column in table.columns]
    spans = [3 if paper else 1 for paper in has_paper]
    head = ["", *(rf"\multicolumn{{{span}}}{{c}}{{{latex(column)}}}" for column, span in zip(table.columns, spans, strict=True))]
    under, first = [], 2
    for span in spans:
        under.append(rf"\cmidrule(lr){{{first}-{first + span - 1}}}")
        first += span
    second = ["", *(" & ".join(["ours", "paper", r"$\Delta$"][:span]) for span in spans)]
    best = {column: _best(table, column) for column in table.columns}
    body = []
    for row in table.rows:
        cells, beneath = [latex(row)], [""]
        for column, span in zip(table.columns, spans, strict=True):
            cell = table.cells[row, column]
            ours, *others = _latex_cell(cell, table)
            cells += [rf"\textbf{{{ours}}}" if row in best[column] else ours, *others][:span]
            beneath.append(rf"\multicolumn{{{span}}}{{r}}{{\scriptsize {_details(cell, table, details)}}}")
        body.append(" & ".join(cells) + r" \\")
        if details:
            body.append(" & ".join(beneath) + r" \\")
    signs = "; ".join(
        f"${LATEX_SIGNS[verdict]}$ {verdict}" for verdict in LATEX_SIGNS if any(c.verdict == verdict for c in table.cells.values())
    )
    text = [
        latex(f"{heading(table)}, {better(table)}."),
        latex(f"Variant: {table.variant}.") if table.variant else "",
        signs and signs + ".",
    ]
    lines = [
        r"% needs \usepackage{booktabs,graphicx} and \usepackage[T1]{fontenc}",
        *(f"% {CONTROL.sub(' ', text)}" for text in (table.command, *(note.text for note in table.notes))),
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{' '.join(part for part in text if part)}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{"  # in one line: an end of line would be a blank in the box
        rf"\begin{{tabular}}{{l{'r' * sum(spans)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        " ".join(under),
        " & ".join(second) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _best(table: Table, column: str) -> set[str]:
    """The rows whose mean is the best of a column as shown; none where there is nothing to compare."""
    means = {row: cell.mean for row in table.rows if (cell := table.cells[row, column]).mean is not None}
    if len(means) < 2:
        return set()
    metric = table.metric_of(column)
    shown = {row: round(mean, metric.digits) for row, mean in means.items()}
    top = max(shown.values()) if metric.direction == "max" else min(shown.values())
    return {row for row, value in shown.items() if value == top}


def _details(cell: Cell, table: Table, wanted: Sequence[str]) -> str:
    digits, found = table.metric_of(cell.column).digits, []
    if "interval" in wanted and cell.interval:
        found.append(f"{number(cell.interval[0], digits)} to {number(cell.interval[1], digits)}")
    if "p" in wanted and cell.paired and cell.paired.p is not None:
        found.append(f"$p$ {cell.paired.p:.3f}" if cell.paired.p >= 0.001 else "$p<.001$")
    return ", ".join(found)


def _latex_cell(cell: Cell, table: Table) -> Sequence[str]:
    digits = table.metric_of(cell.column).digits
    ours = latex(measured(cell, table) or states(cell))
    paper = (
        latex(f"{number(cell.paper.value, digits)}" + (f" ± {number(cell.paper.sd, digits)}" if cell.paper.sd else ""))
        if cell.paper
        else ""
    )
    sign = LATEX_SIGNS.get(cell.verdict)
    difference = f"${number(cell.difference, digits, sign=True)}{f'^{{{sign}}}' if sign else ''}$" if cell.difference is not None else ""
    return ours, paper, difference
