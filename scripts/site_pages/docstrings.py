"""Our plain-text docstrings as reStructuredText: paragraphs, lists, fields, and everything aligned by hand as it stands.

Nothing in a docstring is markup but `backticks`: stars, bars and underscores are maths. Equations are lines that are indented, or a
paragraph of one line with an equals sign and no full stop.
"""

import inspect
import re
from collections.abc import Iterator, Sequence

HEADS = ("Args:", "Returns:", "Raises:", "Attributes:", "Yields:")
FIELD = re.compile(r"(\*{0,2}\w+(?:, \*{0,2}\w+)*): +(\S.*)")
PAPER = re.compile(r"(?<![\w./])(\d{4}\.\d{4,5})(?![\w/]|\.\d)")


def inline(text: str) -> str:
    """One run of text: code in backticks, arXiv numbers as links, all other characters as they are."""
    parts = re.split(r"(``[^`]+``|`[^`]+`)", " ".join(text.split()))
    return "".join(_code(part.strip("`")) if part.startswith("`") and len(part) > 2 else _plain(part) for part in parts)


def _code(text: str) -> str:
    return rf"\ ``{text.strip()}``\ " if text.strip() else ""


def _plain(text: str) -> str:
    found = []
    for i, part in enumerate(PAPER.split(text)):
        found.append(rf"\ `{part} <https://arxiv.org/abs/{part}>`__\ " if i % 2 else re.sub(r"([\\*_`|<>])", r"\\\1", part))
    return "".join(found)


def restructured(text: str) -> list[str]:
    """The lines of a docstring as reStructuredText."""
    blocks: list[tuple[str, list[str]]] = []
    for kind, lines in _blocks(inspect.cleandoc(text).splitlines()):
        if kind == "literal" and blocks and blocks[-1][0] == "literal":  # an equation, and how it goes on
            blocks[-1][1].extend(lines)
        else:
            blocks.append((kind, lines))
    return [line for kind, lines in blocks for line in [*_written(kind, lines), ""]]


def _written(kind: str, lines: Sequence[str]) -> list[str]:
    if kind == "literal":
        return literal(lines)
    if kind == "list":
        return [f"- {inline(item)}" for item in _items(lines)]
    if kind == "fields":
        found = [f"**{lines[0].rstrip(':')}**", ""]
        for entry in _entries(lines[1:]):
            named = FIELD.match(entry)
            found.append(f"- \\ ``{named[1]}``\\ : {inline(named[2])}" if named else f"- {inline(entry)}")
        return found
    return [inline(" ".join(lines))]


def literal(lines: Sequence[str], language: str = "text") -> list[str]:
    least = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    return [f".. code-block:: {language}", "", *(f"   {line[least:]}".rstrip() for line in lines)]


def _blocks(lines: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """(kind, lines): text, literal, list or fields."""
    kind, block = "", []
    for line in [*lines, ""]:
        own = _kind(line, kind)
        if own == kind and (line.strip() or kind in ("literal", "fields")):
            block.append(line)
            continue
        if block:
            yield _finished(kind, block)
        kind, block = own, [line] if line.strip() else []
    if any(line.strip() for line in block):
        yield _finished(kind, block)


def _kind(line: str, before: str) -> str:
    """What a line belongs to, given what it follows; '' where a blank line ends a paragraph."""
    if not line.strip():
        return before if before in ("literal", "fields") else ""
    if line in HEADS:
        return "fields"
    indented = line.startswith(" ")
    if indented and before in ("fields", "list"):
        return before
    if indented:
        return "literal"
    return "list" if line.startswith("- ") else "text"


def _finished(kind: str, block: list[str]) -> tuple[str, list[str]]:
    while not block[-1].strip():
        block.pop()
    equation = kind == "text" and len(block) == 1 and " = " in block[0] and not block[0].endswith((".", ":")) and "`" not in block[0]
    return ("literal" if equation else kind), block


def _items(lines: Sequence[str]) -> list[str]:
    found: list[str] = []
    for line in lines:
        if line.startswith("- "):
            found.append(line[2:])
        else:
            found[-1] += " " + line.strip()
    return found


def _entries(lines: Sequence[str]) -> list[str]:
    """The entries below `Args:`: each begins at the least indentation."""
    written = [line for line in lines if line.strip()]
    least = min((len(line) - len(line.lstrip()) for line in written), default=0)
    found: list[str] = []
    for line in written:
        if len(line) - len(line.lstrip()) == least or not found:
            found.append(line.strip())
        else:
            found[-1] += " " + line.strip()
    return found
