"""Checkpoint: what a run goes on from."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

from attnlab.callbacks import CHECKPOINT

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class Checkpoint:
    """`last.ckpt` after an epoch: at most every `seconds`, and always after that at which training ends or is halted.
    See `attnlab.training.checkpointing`."""

    order = CHECKPOINT

    def __init__(self, path: Path, *, seconds: float = 10.0) -> None:
        self.path, self.seconds = path, seconds
        self.saved = time.monotonic()

    def on_epoch_end(self, learner: "Learner", row: dict[str, float]) -> None:
        trainer = learner.trainer
        due = learner.last_epoch or learner.halted or time.monotonic() - self.saved >= self.seconds
        if not trainer.strategy.broadcast(bool(due)):
            return
        trainer.save_checkpoint(self.path)
        self.saved = time.monotonic()
