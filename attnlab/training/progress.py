"""Progress and checkpoints during training."""

import functools
import logging
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytorch_lightning as pl
from attnlab.training.settings import Settings

log = logging.getLogger("attnlab")


def callbacks(path: Path | None, *, settings: Settings, images_per_epoch: int) -> "list[pl.Callback]":
    """The progress line and the checkpoint writer (for a path)."""
    from pytorch_lightning.callbacks import Checkpoint

    class LastCheckpoint(Checkpoint):
        """`last.ckpt` after an epoch: at most every `checkpoint_seconds`, and always after the last. Written beside, then renamed."""

        def __init__(self) -> None:
            self.saved = time.monotonic()

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            last = trainer.current_epoch + 1 == trainer.max_epochs
            due = last or time.monotonic() - self.saved >= settings.checkpoint_seconds
            if not trainer.strategy.broadcast(due) or path is None:
                return
            temporary = path.with_name(f".{path.name}.tmp")
            trainer.save_checkpoint(temporary)
            if trainer.is_global_zero:
                temporary.replace(path)
            self.saved = time.monotonic()

    class Progress(Checkpoint):
        """One line that redraws itself in a terminal; in a log a line an epoch (at most one in two seconds), and one a minute within it.

        A Checkpoint because Lightning calls those after the learner has made the epoch's row.
        """

        def __init__(self) -> None:
            self.shown = 0.0
            self.first = (0.0, 0)
            self.total = 1
            self.terminal = sys.stderr.isatty()

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.total = pl_module.steps_per_epoch * trainer.max_epochs
            self.first = (time.monotonic(), pl_module.steps_per_epoch * trainer.current_epoch)
            self.shown = time.monotonic()
            pl_module.on_step = functools.partial(self.look, trainer, pl_module)

        def look(self, trainer: Any, pl_module: Any, steps: int) -> None:
            moment = time.monotonic()
            if moment - self.shown >= (0.25 if self.terminal else 60.0):
                self.shown = moment
                self.show(trainer, pl_module, steps)

        def show(self, trainer: Any, pl_module: Any, steps: int) -> None:
            if not self.terminal:
                log.info("%s", self.line(trainer, pl_module, steps))
                return
            share = (steps - 1) % pl_module.steps_per_epoch / pl_module.steps_per_epoch
            bar = "█" * round(20 * share) + "·" * (20 - round(20 * share))
            sys.stderr.write(f"\r\x1b[2K{bar} {self.line(trainer, pl_module, steps)}")
            sys.stderr.flush()

        def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
            moment = time.monotonic()
            last = trainer.current_epoch + 1 == trainer.max_epochs
            if self.terminal or last or moment - self.shown >= 2:
                self.shown = moment
                self.show(trainer, pl_module, pl_module.totals.steps)
            if self.terminal and last:
                sys.stderr.write("\n")

        def line(self, trainer: Any, pl_module: Any, steps: int) -> str:
            start, first = self.first
            rate = (steps - first) / max(time.monotonic() - start, 1e-9)
            left = (self.total - steps) / rate if rate else math.inf
            images = rate * images_per_epoch / pl_module.steps_per_epoch
            row = pl_module.history[-1] if pl_module.history else {}
            shown = "  ".join(f"{key} {row[key]:.4f}" for key in ("train/loss", "train/acc", "val/acc") if key in row)
            clock = f"{int(left) // 60}:{int(left) % 60:02d}" if math.isfinite(left) else "?"
            return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}  {images:,.0f} images/s  {clock} left"

    return [*([Progress()] if settings.progress else []), LastCheckpoint()]
