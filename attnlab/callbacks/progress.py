"""Progress: where training is, on stderr."""

import logging
import math
import sys
import time
from typing import TYPE_CHECKING

from attnlab.callbacks import RECORDING

if TYPE_CHECKING:
    from attnlab.training.learner import Learner

log = logging.getLogger("attnlab")


class Progress:
    """In a terminal a line that redraws itself and stays after every epoch; in a log a line an epoch (at most one in two seconds), and one
    a minute within it."""

    order = RECORDING + 1
    every = 1

    def __init__(self, *, images_per_epoch: int) -> None:
        self.images_per_epoch = images_per_epoch
        self.terminal = sys.stderr.isatty()

    def on_fit_start(self, learner: "Learner") -> None:
        self.first = (time.monotonic(), learner.steps_per_epoch * learner.current_epoch)
        self.shown = time.monotonic()

    def on_step(self, learner: "Learner", step: int) -> None:
        moment = time.monotonic()
        if moment - self.shown >= (0.25 if self.terminal else 60.0):
            self.shown = moment
            self.show(learner, step)

    def on_epoch_end(self, learner: "Learner", row: dict[str, float]) -> None:
        moment = time.monotonic()
        if self.terminal or learner.last_epoch or moment - self.shown >= 2:
            self.shown = moment
            self.show(learner, learner.totals.steps, ends=True)

    def show(self, learner: "Learner", step: int, *, ends: bool = False) -> None:
        """ends: the epoch, whose line stays."""
        if not self.terminal:
            log.info("%s", self.line(learner, step))
            return
        share = 1.0 if ends else (step - 1) % learner.steps_per_epoch / learner.steps_per_epoch
        bar = "█" * round(20 * share) + "·" * (20 - round(20 * share))
        end = "\n" if ends else ""
        sys.stderr.write(f"\r\x1b[2K{bar} {self.line(learner, step)}{end}")
        sys.stderr.flush()

    def line(self, learner: "Learner", step: int) -> str:
        start, first = self.first
        rate = (step - first) / max(time.monotonic() - start, 1e-9)
        left = (learner.total_steps - step) / rate if rate else math.inf
        images = rate * self.images_per_epoch / learner.steps_per_epoch
        row = learner.history[-1] if learner.history else {}
        shown = "  ".join(f"{key} {row[key]:.4f}" for key in ("train/loss", "train/acc", "val/acc") if key in row)
        clock = f"{int(left) // 60}:{int(left) % 60:02d}" if math.isfinite(left) else "?"
        return f"epoch {learner.current_epoch + 1}/{learner.settings.max_epochs}  {shown}  {images:,.0f} images/s  {clock} left"
