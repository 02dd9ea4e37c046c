"""What of a run's folder the page shows, as far as it can be read; nothing is written or set aside."""

import functools
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from attnlab.records.pictures import Picture, pictures_of
from attnlab.records.record import read_history
from attnlab.tables.model import RunOfCell

LOG_LINES, LOG_BYTES = 14, 16384

# Kinds of pictures in the page's order, at last those of no stated kind. Not the curves: the page draws them over all seeds.
SHOWN = ("ood_scores", "attention", "explanation", "faithfulness", "reliability", "calibration", "consistency", "")


@dataclass(frozen=True)
class RunFolder:
    """A run of a cell and what its folder holds: the names in it, result.json, the rows of metrics.csv, pictures in the page's order."""

    run: RunOfCell
    folder: Path | None
    names: frozenset[str]
    result: Mapping[str, Any]
    history: tuple[Mapping[str, float], ...]
    pictures: tuple[Picture, ...]


def read_folder(run: RunOfCell, outputs: Path, read: Callable[[Path], Mapping[str, Any]]) -> RunFolder:
    """`read` gives the result.json of a folder."""
    folder = run.folder or (outputs / "runs" / run.run_id if run.run_id else None)
    if folder is None or not folder.is_dir():
        return RunFolder(run, None, frozenset(), {}, (), ())
    result = read(folder)
    shown = (picture for picture in pictures_of(folder, result) if picture.kind in SHOWN)
    pictures = sorted(shown, key=lambda picture: SHOWN.index(picture.kind))
    return RunFolder(run, folder, _names(folder), result, tuple(read_history(folder / "metrics.csv")), tuple(pictures))


def _names(folder: Path) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except OSError:
        return frozenset()


def last_lines(path: Path, count: int = LOG_LINES, size: int = LOG_BYTES) -> str:
    """The end of a log, without reading the rest of it."""
    try:
        with open(path, "rb") as file:
            file.seek(0, os.SEEK_END)
            start = max(file.tell() - size, 0)
            file.seek(start)
            text = file.read(size).decode("utf-8", "replace")
    except OSError:
        return ""
    lines = text.splitlines()[1 if start else 0 :]
    return "\n".join(line[:400] for line in lines[-count:]).strip("\n")


def linker(path: Path) -> Callable[[Path], str]:
    """From a file to its address relative to the page at `path`, escaped for an attribute."""
    here = path.resolve().parent

    @functools.cache
    def relative_to_page(folder: Path) -> str:
        return os.path.relpath(folder.resolve(), here)

    def link(target: Path) -> str:
        try:
            relative = os.path.join(relative_to_page(target.parent), target.name)
        except ValueError:  # another drive
            return ""
        return escape(quote(os.path.normpath(relative).replace(os.sep, "/"), safe="/._-~+=,@"))

    return link
