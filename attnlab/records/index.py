"""The records on disk as a table reads them: no record is set aside, no lock held for longer than a look, no file written."""

import contextlib
import functools
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from attnlab.config.result import FINISHED, INTERRUPTED, MISSING, RUNNING, Found, address_in, read_result
from attnlab.records.record import Record


class Records:
    """The runs under `outputs`, by address; each result.json is read once. kind: the folder that holds them."""

    def __init__(self, outputs: Path, kind: str = "runs") -> None:
        self.runs = outputs / kind
        self._folders: dict[str, Path] = {}
        self._read: dict[Path, Found] = {}
        with contextlib.suppress(OSError):
            for entry in sorted(os.scandir(self.runs), key=lambda entry: entry.name, reverse=True):
                if entry.is_dir():
                    self._folders[address_in(entry.name)] = Path(entry.path)  # of two, the one that Record.find takes

    def find(self, address: str) -> Found:
        folder = self._folders.get(address)
        return self._at(folder) if folder else Found(MISSING)

    def result(self, folder: Path) -> Mapping[str, Any]:
        """The result.json of a folder, empty where there is none that can be trusted."""
        return self._at(folder).result

    def all(self) -> Iterable[Found]:
        return map(self._at, self._folders.values())

    @functools.cached_property
    def finished(self) -> list[Mapping[str, Any]]:
        """The results of all finished runs."""
        return [found.result for found in self.all() if found.status == FINISHED]

    def _at(self, folder: Path) -> Found:
        if folder not in self._read:
            self._read[folder] = self._look(folder)
        return self._read[folder]

    def _look(self, folder: Path) -> Found:
        found = read_result(folder)
        if found.status == FINISHED:
            return found
        if Record(folder).is_locked:
            return replace(found, status=RUNNING)  # also one that failed before and is at work again
        return replace(found, status=INTERRUPTED) if found.status == RUNNING else found


def digests(result: Mapping) -> Mapping[str, str]:
    """Of the images a run saw, by split."""
    data = result.get("data")
    found = data.get("digests") if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}
