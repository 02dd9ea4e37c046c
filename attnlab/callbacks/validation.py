"""Validation: the figures of the validation images, in the epoch's row."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import nn

from attnlab.callbacks import VALIDATION

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class Validation:
    """`evaluate(network) -> {"val/acc": ...}` of the network as it stands, every `epochs` epochs and after the last."""

    order = VALIDATION

    def __init__(self, evaluate: Callable[[nn.Module], dict[str, float]], *, epochs: int = 1) -> None:
        self.evaluate, self.epochs = evaluate, epochs

    def on_epoch_end(self, learner: "Learner", row: dict[str, float]) -> None:
        if learner.trainer.is_global_zero and (learner.last_epoch or (row["epoch"] + 1) % self.epochs == 0):
            row |= self.evaluate(learner.tested(now=True))
