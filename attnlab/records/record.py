"""Record: the folder of a run, addressed by its configuration; who works on it; what is known of it and whether that can be trusted.

outputs/runs/digits-resnet18-rect-s0-3fa9c1d2/
    result.json   the truth: status, config, metrics, places, versions ...; written after every stage, whole or not at all
    last.ckpt     the last finished epoch: weights, optimizer, schedule, loss buffers, history
    metrics.csv   one row an epoch      figures/*.png      train.log
    evaluations/  what attnlab.evaluate adds later
"""

import contextlib
import csv
import glob
import io
import json
import logging
import math
import os
import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from attnlab.config.result import BROKEN, FAILED, FINISHED, HALTED, INTERRUPTED, RUNNING, address_in, read_result, sealed
from attnlab.records.atomic import free_name, plain_json, set_aside, sweep_temporaries, write_atomic
from attnlab.records.checkpoint import inspect_checkpoint
from attnlab.records.lock import hold, hold_if_free, is_locked
from attnlab.terminal import Visible

log = logging.getLogger("attnlab")

__all__ = ["FAILED", "FINISHED", "HALTED", "INTERRUPTED", "RUNNING", "Record", "changed_defaults", "read_history"]


RUN_ID = re.compile(r"[\w+=-][\w.+=-]*")


class Record:
    """One run's folder. `Record.find(outputs, address, label)` gives the one that exists for an address, or where it will be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.result_path = folder / "result.json"
        self.checkpoint_path = folder / "last.ckpt"

    @classmethod
    def find(cls, outputs: Path, address: str, label: str) -> "Record":
        found = [folder for folder in (outputs / "runs").glob(f"*-{address}") if folder.is_dir()]
        return cls(sorted(found)[0] if found else outputs / "runs" / f"{label}-{address}")

    @property
    def run_id(self) -> str:
        return self.folder.name

    @property
    def address(self) -> str:
        return address_in(self.run_id)

    def lock(self) -> AbstractContextManager[None]:
        """One process works on a run; another reports whom it waits for."""

        def waiting(who: str) -> None:
            log.info("%s: %s works on this run; waiting for it (Ctrl-C to stop waiting)", self.run_id, who)

        return hold(self._locks / f"{self.address}.lock", waiting=waiting)

    def training_lock(self, training: str) -> AbstractContextManager[None]:
        """One process trains a network; another that needs the same one (runs that differ in OOD heads or sets) waits until it is there.

        Taken inside `lock`, never the other way round, so that no two processes wait for each other.
        """

        def waiting(who: str) -> None:
            log.info("%s: %s trains the same network; waiting for it (Ctrl-C to stop waiting)", self.run_id, who)

        return hold(self._locks / f"training-{training}.lock", name=self.run_id, waiting=waiting)

    def lock_if_free(self) -> AbstractContextManager[bool]:
        """As `lock`, without waiting: whether nobody works on this run, and until the end nobody begins to."""
        return hold_if_free(self._locks / f"{self.address}.lock")

    @property
    def is_locked(self) -> bool:
        """Whether a process works on this run."""
        return is_locked(self._locks / f"{self.address}.lock")

    @property
    def _locks(self) -> Path:
        return self.folder.parent / ".locks"

    def result(self) -> dict[str, Any] | None:
        """The stored result, or None. A file that is damaged or another run's is set aside: BrokenRecord."""
        found = read_result(self.folder)
        if found.cause:
            raise found.cause
        if found.status == BROKEN:
            raise set_aside(self.result_path, found.wrong)
        return dict(found.result) or None

    def write(self, result: Mapping[str, Any]) -> None:
        write_atomic(self.result_path, json.dumps(sealed(plain_json(result)), indent=1) + "\n")

    def announce_training(self, training: str) -> None:
        """For runs to come that need the same training: it is in this folder. Done under its `training_lock`."""
        path = self.folder.parent / ".trainings" / training
        sweep_temporaries(path)
        write_atomic(path, self.run_id)

    def trained_elsewhere(self, training: str) -> tuple["Record", dict[str, Any]] | None:
        """The record that states it has done this training, and what it holds. Whether it has, its checkpoint shows."""
        try:
            name = (self.folder.parent / ".trainings" / training).read_text().strip()
        except (OSError, ValueError):
            return None
        if not RUN_ID.fullmatch(name):  # damaged, or a path that leads elsewhere
            return None
        other = Record(self.folder.parent / name)
        stored = dict(read_result(other.folder).result)
        return (other, stored) if stored and stored["run_id"] == other.run_id != self.run_id else None

    def take_checkpoint(self, other: "Record", owners: Sequence[str], present: Mapping[str, Any], *, epochs: int) -> dict[str, Any] | None:
        """A copy of another run's last checkpoint, if it is whole, fits, and is that of all epochs or of an early stop. The copy is
        inspected, so that what the other does meanwhile does not matter."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = self.checkpoint_path.with_name(f".last.ckpt.{os.getpid()}.tmp")
        try:
            shutil.copyfile(other.checkpoint_path, temporary)
            checkpoint, wrong = inspect_checkpoint(temporary, owners, present)
            own = checkpoint.get("attnlab", {})
            if wrong or (len(own["history"]) != epochs and not own.get("stopped")):
                return None
            os.replace(temporary, self.checkpoint_path)
            return checkpoint
        except OSError:
            return None
        finally:
            temporary.unlink(missing_ok=True)

    def write_history(self, history: Sequence[Mapping[str, float]]) -> None:
        """metrics.csv: one row an epoch, all columns that any row has; `history` as the learner keeps it, epochs from 0."""
        history = from_one(history)
        columns = list(dict.fromkeys(key for row in history for key in row))
        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_atomic(self.folder / "metrics.csv", buffer.getvalue())

    def keep_beside(self) -> Path:
        """Move the whole folder out of the way of a run made afresh."""
        target = free_name(self.folder.with_name(f"{self.run_id}.old"))
        os.replace(self.folder, target)
        return target

    @property
    def times_kept(self) -> int:
        """How many runs of this address were moved out of the way of one made afresh."""
        return sum(path.is_dir() for path in self.folder.parent.glob(f"{glob.escape(self.run_id)}.old*"))

    def check_links(self) -> None:
        """ValueError where a folder inside a run's, that is written to, is a link: with a run of somebody else it comes along, and may lead
        anywhere. The run's own folder may be one."""
        inside = [
            self.folder / "figures",
            self.folder / "wandb",
            *([self.folder.parent, self.folder] if self.folder.parent.name == "evaluations" else []),
        ]
        for path in inside:
            if path.is_symlink():
                raise ValueError(f"{path}: is a link to {path.resolve()}, and nothing is written through it; remove it")

    def sweep_temporaries(self) -> None:
        """Half-written files that a killed process left."""
        for path in self.folder.glob(".*.tmp"):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def logfile(self) -> Iterator[None]:
        """Everything logged goes into train.log too, with the time; tracebacks go there only."""
        self.folder.mkdir(parents=True, exist_ok=True)
        handler = Logfile(self.folder / "train.log")
        handler.setFormatter(Visible("%(asctime)s %(message)s"))
        handler.setLevel(logging.DEBUG)
        log.addHandler(handler)
        log.setLevel(logging.DEBUG)
        try:
            yield
        finally:
            log.removeHandler(handler)
            with contextlib.suppress(OSError):
                handler.close()


class Logfile(logging.FileHandler):
    """A log on a disk that may be full: what cannot be written is lost, and the run's own error says why, not a page of logging's."""

    def handleError(self, record: logging.LogRecord) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def from_one(history: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Rows whose epochs are counted as people do, from 1; those that begin at 1 as they are."""
    shift = 1 if any(row.get("epoch") == 0 for row in history) else 0
    return [{key: value + shift if key in ("epoch", "best_epoch") else value for key, value in row.items()} for row in history]


def read_history(path: Path) -> list[dict[str, float]]:
    """The rows of a metrics.csv that have an epoch, by column, epochs from 1; what is no number is left out, and so is what cannot be
    read. Early files counted from 0."""
    rows = []
    with contextlib.suppress(OSError, ValueError, csv.Error):
        lines = csv.reader(path.read_text(encoding="utf-8").splitlines())
        columns = next(lines, [])
        for line in lines:
            row = {}
            for column, text in zip(columns, line, strict=False):
                try:
                    row[column] = float(text)
                except ValueError:
                    continue
            if math.isfinite(row.get("epoch", math.nan)):
                rows.append(row)
    return from_one(rows)


def changed_defaults(recorded: Mapping[str, Any], present: Mapping[str, Any], where: str = "") -> list[str]:
    """Values that two configs of one address both give, and differently: a component's default changed since the record was made."""
    if recorded == present:  # nearly always, and a whole tree at once
        return []
    found = []
    for key, value in present.items():
        if key in recorded:
            path = f"{where}.{key}" if where else key
            if isinstance(value, Mapping) and isinstance(recorded[key], Mapping):
                found += changed_defaults(recorded[key], value, path)
            elif value != recorded[key] and plain_json(value) != plain_json(recorded[key]):
                found.append(f"{path} was {recorded[key]}, is {value}")
    return found
