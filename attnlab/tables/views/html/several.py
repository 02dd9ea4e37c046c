"""Several filled tables as one HTML file of bounded size: a list of contents, then every table with its pictures and footnotes.

What opens under a cell is on the table's own page, whose command the table shows. Where the page would be too large, the dots of the
seeds are left out of the largest tables, then pictures; what is left out is said under the table.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any

from attnlab.records.atomic import write_atomic
from attnlab.tables.model import Table
from attnlab.tables.views.html.files import RunFolder, linker, read_folder
from attnlab.tables.views.html.labels import command_box, plural
from attnlab.tables.views.html.matrix import matrix
from attnlab.tables.views.html.page import about, bar, document, failures, footnotes, shared, state
from attnlab.tables.views.html.pictures import EARLY, candidates, embed

LIMIT = 1_000_000  # bytes of the page
FOR_PICTURES = 200_000  # of them are kept for pictures
WIDTHS, PICTURE_BYTES = (640, 400, 240), 60_000  # a picture has the first width at which it has no more bytes, base64
PICTURES_PER_TABLE = 4
NAMED = 3  # of the pictures that are left out

log = logging.getLogger("attnlab")


def write_several(
    tables: Sequence[Table],
    path: Path,
    *,
    outputs: Path,
    read: Callable[[Path], Mapping[str, Any]],
    command: str = "",
    limit: int = LIMIT,
) -> Path:
    """Write the page of `tables` to `path`, whole or not at all, and return it. read: the result.json of a folder."""
    folders = [{key: tuple(read_folder(run, outputs, read) for run in cell.runs) for key, cell in table.cells.items()} for table in tables]
    pictures: list[list[tuple]] = [[] for _ in tables]
    left_out: list[list[str]] = [[] for _ in tables]
    plain: set[int] = set()  # tables without dots

    def page() -> str:
        parts = [_top(tables, command)]
        for n, (table, runs) in enumerate(zip(tables, folders, strict=True)):
            groups = [("", pictures[n])] if pictures[n] else []
            parts.append(
                f'<article id="{_anchor(table)}">\n<h2>{escape(table.title or table.name)}</h2>\n{about(table)}\n'
                f"{matrix(table, {}, strips=n not in plain)}\n{shared(groups, linker(path), title='Pictures')}\n"
                f"{failures(table, runs, linked=False)}\n"
                f"<footer><h3>Footnotes</h3>{footnotes(table, more=_left_out(n in plain, left_out[n]))}</footer>\n</article>"
            )
        return document("Results", parts, columns=max(len(table.columns) for table in tables))

    size = len(page().encode())
    for n in sorted(range(len(tables)), key=lambda n: -len(tables[n].cells)):
        if size + FOR_PICTURES > limit:
            plain.add(n)
            size = len(page().encode())
    if size > limit:
        log.warning("the page has %s bytes without any picture; leave a table out, or choose rows: table.NAME.rows=[...]", f"{size:,}")
    known: set[Path] = set()
    for turn in zip_longest(*(_wanted(table, runs) for table, runs in zip(tables, folders, strict=True))):
        for n, (caption, picture) in ((n, one) for n, one in enumerate(turn) if one and one[1] not in known):
            known.add(picture)
            sizes = WIDTHS if len(pictures[n]) < PICTURES_PER_TABLE else ()
            made = next((made for width in sizes if (made := embed(picture, width)) and len(made[0]) <= PICTURE_BYTES), None)
            cost = len(made[0]) + 1000 if made else 0  # and what stands around it
            if made and size + cost <= limit:
                pictures[n].append((caption, picture, *made))
                size += cost
            else:
                left_out[n].append(caption)
    return write_atomic(path, page())


def _top(tables: Sequence[Table], command: str) -> str:
    items = "".join(
        f'<li><a href="#{_anchor(table)}">{escape(table.title or table.name)}</a> <span>{escape(table.name)}: {state(table)}</span></li>'
        for table in tables
    )
    return (
        f'<header>\n{bar("results")}\n<h1>Results</h1>\n<p class="lead">{plural(len(tables), "table")}. What stands behind a number, seed '
        f"by seed, is on the page of its table: the table’s command with format=html.</p>\n{command_box(command)}\n"
        f'<nav aria-label="Contents"><ul class="contents">{items}</ul></nav>\n</header>'
    )


def _anchor(table: Table) -> str:
    return f"table-{re.sub(r'[^a-zA-Z0-9_-]+', '-', table.name)}"


def _wanted(table: Table, folders: Mapping[tuple[str, str], Sequence[RunFolder]]) -> Iterator[tuple[str, Path]]:
    """Pictures of the table with their captions: those that its cells share, then cell by cell what shows the most."""
    common, own = candidates(table, folders)
    yield from common
    for row in table.rows:
        for column in table.columns:
            yield from ((f"{row}, {column}: {caption}", path) for kind, caption, path in own[row, column] if kind in EARLY)


def _left_out(plain: bool, captions: Sequence[str]) -> list[str]:
    """What the table's own page has besides."""
    rest = f" and {len(captions) - NAMED:,} more" if len(captions) > NAMED else ""
    found = ["every seed as a dot"] if plain else []
    found += [f"{plural(len(captions), 'picture')} ({'; '.join(captions[:NAMED])}{rest})"] if captions else []
    return [f"Left out here for the size of the page: {', '.join(found)}." if found else "Nothing was left out but the cells’ details."]
