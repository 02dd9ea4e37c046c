"""The records on disk as a table reads them: no record is set aside, no lock held for longer than a look, no file written."""

import contextlib
import functools
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from attnlab.records.record import FAILED, FINISHED, INTERRUPTED, REQUIRED, RUNNING

MISSING, BROKEN = "missing", "broken"


@dataclass(frozen=True)
class Found:
    """What is on disk of one run: its status as a reader sees it, and its result.json (empty where there is none)."""

    status: str
    folder: Path | None = None
    result: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


class Records:
    """The runs under `outputs`, by address; each result.json is read once."""

    def __init__(self, outputs: Path) -> None:
        self.runs = outputs / "runs"
        self._folders: dict[str, Path] = {}
        self._read: dict[Path, Found] = {}
        with contextlib.suppress(OSError):
            for entry in sorted(os.scandir(self.runs), key=lambda entry: entry.name, reverse=True):
                if entry.is_dir():
                    self._folders[entry.name.rpartition("-")[2]] = Path(entry.path)  # of two, the one that Record.find takes

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
        found = _read(folder)
        if found.status == FINISHED:
            return found
        if is_locked(self.runs / ".locks" / f"{folder.name.rpartition('-')[2]}.lock"):
            return replace(found, status=RUNNING)  # also one that failed before and is at work again
        return replace(found, status=INTERRUPTED) if found.status == RUNNING else found


def _read(folder: Path) -> Found:
    """The record as it says of itself."""
    try:
        result = json.loads((folder / "result.json").read_text())
    except FileNotFoundError:
        return Found(INTERRUPTED if (folder / "last.ckpt").exists() else MISSING, folder)
    except (OSError, ValueError) as error:
        return Found(BROKEN, folder, error=f"result.json cannot be read: {_first_line(error)}")
    for key, kind in REQUIRED.items():
        if not isinstance(result, dict) or not isinstance(result.get(key), kind):
            return Found(BROKEN, folder, error=f"result.json has no {key}")
    if result["run_id"].rpartition("-")[2] != folder.name.rpartition("-")[2]:
        return Found(BROKEN, folder, error=f"result.json belongs to another run ({result['run_id']})")
    if result["status"] not in (RUNNING, INTERRUPTED, FAILED, FINISHED):
        return Found(BROKEN, folder, error=f"result.json has the status {result['status']!r}")
    told = result.get("error")
    message = told.get("message") if isinstance(told, dict) else None
    return Found(result["status"], folder, result, str(message) if message else None)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock, without making one. Where the system cannot tell: no."""
    try:
        import fcntl

        with open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except (ImportError, OSError):
        return False
    return False


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def digests(result: Mapping) -> Mapping[str, str]:
    """Of the images a run saw, by split."""
    data = result.get("data")
    found = data.get("digests") if isinstance(data, dict) else None
    return found if isinstance(found, dict) else {}
