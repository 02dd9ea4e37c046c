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


def to_latex(table: Table) -> str:
    """A `table` environment for \\usepackage{booktabs} and \\usepackage[T1]{fontenc}: ours, the paper's and their difference a column."""
    has_paper = [any(table.cells[row, column].paper for row in table.rows) for column in table.columns]
    spans = [3 if paper else 1 for paper in has_paper]
    head = ["", *(rf"\multicolumn{{{span}}}{{c}}{{{latex(column)}}}" for column, span in zip(table.columns, spans, strict=True))]
    under, first = [], 2
    for span in spans:
        under.append(rf"\cmidrule(lr){{{first}-{first + span - 1}}}")
        first += span
    second = ["", *(" & ".join(["ours", "paper", "difference"][:span]) for span in spans)]
    body = []
    for row in table.rows:
        cells = [latex(row)]
        for column, span in zip(table.columns, spans, strict=True):
            cells += _latex_cell(table.cells[row, column], table)[:span]
        body.append(" & ".join(cells) + r" \\")
    signs = "; ".join(
        f"${LATEX_SIGNS[verdict]}$ {verdict}" for verdict in LATEX_SIGNS if any(c.verdict == verdict for c in table.cells.values())
    )
    text = [
        latex(f"{heading(table)}, {better(table)}."),
        latex(f"Variant: {table.variant}.") if table.variant else "",
        signs and signs + ".",
    ]
    lines = [
        r"% needs \usepackage{booktabs} and \usepackage[T1]{fontenc}",
        *(f"% {CONTROL.sub(' ', text)}" for text in (table.command, *(note.text for note in table.notes))),
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{' '.join(part for part in text if part)}}}",
        rf"\begin{{tabular}}{{l{'r' * sum(spans)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        " ".join(under),
        " & ".join(second) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


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
