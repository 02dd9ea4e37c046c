"""Report: what an attack has done and found, its progress while it runs, and the summary as JSON; `attacked`: one command of it."""

import dataclasses
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.commands import Ended, Forked

MEMORY = 12 * 2**30  # bytes of address space that a child may have


def attacked(work: Callable[[], object], *words: object, timeout: float = 120.0, **options: object) -> Ended:
    """How a child ended that did `work` with these words as its arguments; options as of `Forked`."""
    return Forked(work, *words, session=True, memory=MEMORY, **options).end(timeout)


@dataclasses.dataclass
class Report:
    """One attack. `count` of what it aims at; `found`: (kind of finding, what was done, what was seen)."""

    name: str
    goal: int
    deadline: float = float("inf")  # of time.monotonic()
    progress: bool = True
    counts: Counter = dataclasses.field(default_factory=Counter)
    found: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    began: float = dataclasses.field(default_factory=time.monotonic)
    done: int = 0
    shown: float = 0.0

    @property
    def more(self) -> bool:
        return self.done < self.goal and time.monotonic() < self.deadline

    def add(self, *kinds: str, of: int = 1) -> None:
        """One more thing done (or `of` many), of these kinds."""
        self.done += of
        self.counts.update(kinds)
        self.show()

    def finding(self, kind: str, what: str, seen: str) -> None:
        self.found.append((kind, what, seen))
        self.say(f"{kind}: {what}\n    {seen.strip()[-1500:]}")

    def say(self, text: str) -> None:
        if self.progress:
            sys.stderr.write(f"\r\x1b[K{text}\n" if sys.stderr.isatty() else f"{text}\n")
            sys.stderr.flush()

    def show(self, *, now: bool = False) -> None:
        """A line in a terminal, one every 30 seconds elsewhere."""
        pause = 0.2 if sys.stderr.isatty() else 30.0
        if not self.progress or (not now and time.monotonic() - self.shown < pause):
            return
        self.shown = time.monotonic()
        text = f"{self.name}: {self.done} of {self.goal}, {len(self.found)} findings, {self.seconds:.0f} s"
        sys.stderr.write(f"\r\x1b[K{text}" if sys.stderr.isatty() else f"{text}\n")
        sys.stderr.flush()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def summary(self) -> dict[str, Any]:
        return {
            "done": self.done,
            "goal": self.goal,
            "seconds": round(self.seconds, 1),
            "counts": dict(sorted(self.counts.items())),
            "findings": [list(one) for one in self.found],
        }
