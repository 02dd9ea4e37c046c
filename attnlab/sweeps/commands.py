"""A job of a sweep as a command of its own, `python -m attnlab.train ...`: its words, and what its end says."""

import contextlib
import signal
from pathlib import Path
from typing import Any

from attnlab.config import result
from attnlab.config.compose import words_alone
from attnlab.records.lookup import record_of
from attnlab.sweeps.journal import DONE, FAILED, HALTED, INTERRUPTED, RESUMED, Job


def words_of(config: Any, job: Job) -> list[str]:
    """The job by itself: python's words, without python."""
    return ["-m", "attnlab.train", *words_alone(config.hydra, job.overrides)]


def note_end(job: Job, code: int, *, log: Path, resumed: bool, stopping: bool = False) -> bool:
    """Write into a job how its process ended; whether it failed in a way that another try may mend."""
    record = record_of(job.plan)
    stored = result.read_result(record.folder).result
    if code == 0:
        job.outcome = HALTED if stored.get("status") == result.HALTED else RESUMED if resumed else DONE
        job.value = stored.get("metrics", {}).get(job.plan.full["objective"])
        return False
    if code in (130, -signal.SIGINT) or stopping:
        job.outcome = INTERRUPTED
        return False
    noted = stored.get("error") if stored.get("status") == result.FAILED and stored.get("started", 0) >= job.started else None
    job.outcome = FAILED
    job.error = noted["message"] if noted else last_words(log, code)
    job.log = str(record.folder / "train.log" if noted else log)
    return not (noted and noted["kind"] == "ConfigError")


def last_words(path: Path, code: int) -> str:
    """Why a process ended, from what it wrote."""
    if code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        return f"its process was ended by {name}" + (" (out of memory?)" if code == -signal.SIGKILL else "")
    with contextlib.suppress(OSError):
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
        if lines:
            return lines[-1].removeprefix("attnlab: ")
    return f"its process ended with code {code}"
