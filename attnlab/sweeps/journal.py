"""Journal: how the jobs of a sweep ended, in a folder that all its processes reach; gone when it is over but for logs of failures."""

import contextlib
import dataclasses
import hashlib
import json
import logging
import shutil
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnlab.config.compose import typed
from attnlab.config.plan import Plan
from attnlab.records.atomic import write_atomic
from attnlab.records.lookup import record_of
from attnlab.terminal import message

log = logging.getLogger("attnlab")

DONE, RESUMED, SKIPPED, HALTED, FAILED, INTERRUPTED = "done", "resumed", "skipped", "halted", "failed", "interrupted"


@dataclasses.dataclass
class Job:
    """One job of a sweep and how it ended; `outcome` is empty while it has not been started."""

    overrides: tuple[str, ...]
    config: Any = None
    plan: Plan | None = None
    number: int = -1
    started: float = 0.0
    outcome: str = ""
    value: float | None = None
    error: str = ""
    log: str = ""
    seconds: float = 0.0
    same_as: "Job | None" = None  # the first job of the sweep that is the same run

    @property
    def words(self) -> str:
        return " ".join(typed(text) for text in self.overrides)

    def take_over(self) -> None:
        """The outcome of the job that is the same run."""
        if self.same_as and self.same_as is not self:
            outcome = self.same_as.outcome
            self.outcome = SKIPPED if outcome in (DONE, RESUMED) else outcome
            self.value, self.error, self.log = self.same_as.value, self.same_as.error, self.same_as.log


class Journal:
    """How each job ended, a file a job: written whole from any process on any host, with no need of locks that network disks lack."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def write(self, job: Job, *, seconds: float) -> None:
        entry = {"outcome": job.outcome, "value": job.value, "error": job.error, "log": job.log, "seconds": seconds}
        write_atomic(self.folder / f"{job.number}.json", json.dumps(entry))
        if job.outcome == FAILED:
            (self.folder / "failed").touch()

    def read(self, number: int) -> dict[str, Any]:
        try:
            return json.loads((self.folder / f"{number}.json").read_text())
        except FileNotFoundError:
            return {}

    @property
    def failed(self) -> bool:
        return (self.folder / "failed").exists()

    def failure_log(self, overrides: Sequence[str]) -> Path:
        """Where the traceback of a job goes that failed before it had a record with a train.log."""
        digest = hashlib.sha256(" ".join(overrides).encode()).hexdigest()[:8]
        return self.folder.parent / "failed" / f"{digest}.log"

    def failure(self, job: Job, error: BaseException) -> None:
        """A job failed: what a person has to know, and where the traceback is."""
        job.outcome, job.error = FAILED, first_line(error)
        log.error("failed: %s: %s", job.plan.run_id if job.plan else job.words, job.error)
        if job.plan and (path := record_of(job.plan).folder / "train.log").exists() and path.stat().st_mtime >= job.started:
            job.log = str(path)
            return
        path = self.failure_log(job.overrides)
        job.log = str(path)
        text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {job.words}\n{''.join(traceback.format_exception(error))}"
        with contextlib.suppress(OSError):  # the disk may be what failed
            write_atomic(path, text)

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def first_line(error: BaseException) -> str:
    text = message(error)
    if text is None:
        text = f"{type(error).__name__}: {error}"
    lines = text.strip().splitlines()
    return lines[0] if lines else type(error).__name__
