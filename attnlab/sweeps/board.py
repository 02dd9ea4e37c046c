"""Board: what a sweep runs at the moment, on stderr: a live table in a terminal, plain lines elsewhere. Reads the runs' own files."""

import contextlib
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnlab.records.lookup import record_of
from attnlab.records.record import read_history
from attnlab.sweeps.journal import DONE, FAILED, HALTED, RESUMED, Job
from attnlab.terminal import visible

log = logging.getLogger("attnlab")

LINE_SECONDS = 60.0  # between two looks in plain lines


def clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"


class Watch:
    """A running job: epoch, accuracy, rate and time left."""

    def __init__(self, job: Job, slots: Sequence[str]) -> None:
        self.job, self.slots = job, slots
        self.path = record_of(job.plan).folder / "metrics.csv"
        self.began = time.time()
        self.stamp, self.rows = 0, []

    def look(self) -> dict[str, str]:
        with contextlib.suppress(OSError):
            stamp = self.path.stat().st_mtime_ns
            if stamp != self.stamp:
                self.stamp, self.rows = stamp, read_history(self.path)
        row = self.rows[-1] if self.rows else {}
        accuracy = row.get("val/acc", row.get("train/acc"))
        rate, left = row.get("images_per_second"), self.left
        return {
            "run": self.job.plan.run_id,
            "on": ",".join(self.slots),
            "epoch": f"{len(self.rows)}/{self.total}",
            "acc": "" if accuracy is None else f"{accuracy:.4f}",
            "images/s": "" if rate is None else f"{rate:,.0f}",
            "left": clock(left),
        }

    @property
    def total(self) -> int:
        return self.job.plan.full["trainer"]["max_epochs"]

    @property
    def left(self) -> float | None:
        """Seconds, from the last five epochs."""
        seconds = [row["seconds"] for row in self.rows[-5:] if "seconds" in row]
        if not seconds:
            return None
        whole = (self.total - len(self.rows)) * sum(seconds) / len(seconds)
        return max(0.0, whole - max(0.0, time.time() - max(self.began, self.stamp / 1e9)))


class Board:
    """`with Board(count) as board`: call `started`, `ended` and, now and then, `update`."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.running: dict[int, Watch] = {}
        self.counts = {DONE: 0, RESUMED: 0, HALTED: 0, FAILED: 0}
        self.took: list[float] = []
        self.paths: list[Path] = []
        self.live: Any = None
        self.shown = time.monotonic()

    def __enter__(self) -> "Board":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            redirect = {"redirect_stdout": False, "redirect_stderr": False}
            self.live = Live(console=Console(stderr=True), refresh_per_second=4, transient=True, **redirect)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()
            self.live = None
            for path in self.paths:
                print(path, flush=True)

    def say(self, text: str) -> None:
        if self.live:
            self.live.console.print(visible(text), markup=False, highlight=False)
        else:
            log.info("%s", text)

    def started(self, job: Job, slots: Sequence[str]) -> None:
        self.running[job.number] = Watch(job, slots)
        self.say(f"{job.plan.run_id}: started{' on GPU ' + ','.join(slots) if slots else ''}")

    def ended(self, job: Job, path: Path | None = None, *, again: bool = False) -> None:
        """A job's process has ended; `path` is the result to print on stdout."""
        watch = self.running.pop(job.number)
        if again:
            return
        seconds = time.time() - watch.began
        if job.outcome in self.counts:
            self.counts[job.outcome] += 1
            self.took.append(seconds)
        value = f", {job.plan.full['objective']} {job.value:.4f}" if isinstance(job.value, float) else ""
        error = f": {job.error}" if job.error else ""
        count = f" ({sum(self.counts.values())} of {self.count})" if job.outcome in self.counts else ""
        self.say(f"{job.plan.run_id}: {job.outcome}{error}{value}, {clock(seconds)}{count}")
        if path and self.live:  # stdout may be the same terminal
            self.paths.append(path)
        elif path:
            print(path, flush=True)

    def update(self, waiting: int) -> None:
        if self.live:
            self.live.update(self.table(waiting))
        elif time.monotonic() - self.shown >= LINE_SECONDS:
            self.shown = time.monotonic()
            for watch in self.running.values():
                row = watch.look()
                more = [f"{key} {row[key]}" for key in ("acc", "images/s", "left") if row[key]]
                self.say("  ".join([f"{row['run']}: epoch {row['epoch']}", *more]))
            self.say(self.footer(waiting))

    def footer(self, waiting: int) -> str:
        counts = {**self.counts, "running": len(self.running), "waiting": waiting}
        text = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
        left = self.left(waiting)
        return f"{text}; about {clock(left)} left" if left is not None else text

    def left(self, waiting: int) -> float | None:
        """Seconds until all are done: the slots share what is left of the running jobs and the mean length of the waiting ones."""
        lefts = [watch.left for watch in self.running.values()]
        known = [left for left in lefts if left is not None]
        whole = [time.time() - watch.began + left for watch, left in zip(self.running.values(), lefts) if left is not None]
        lengths = self.took or whole
        if not lengths or not self.running:
            return None
        mean = sum(lengths) / len(lengths)
        rest = sum(known) + (len(lefts) - len(known)) * mean + waiting * mean
        return max(rest / len(lefts), max(known, default=0.0))

    def table(self, waiting: int) -> Any:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, caption=self.footer(waiting), caption_justify="left")
        rows = [watch.look() for watch in self.running.values()]
        keys = [key for key in ("run", "on", "epoch", "acc", "images/s", "left") if any(row[key] for row in rows)]
        for key in keys:
            table.add_column(key, justify="left" if key in ("run", "on") else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(visible(row[key]) for key in keys))
        return table
