"""Halt: end a run for now that does worse than it must; the same command without `halt` goes on from its checkpoint."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from attnlab.callbacks import CHECKPOINT
from attnlab.callbacks.best import is_better

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class Halt:
    """Halt after an epoch at which the best `metric` so far is worse than `worse_than` says for it. What a sweep's pruner is in a run.

        python -m attnlab.train data.val=0.1 'halt={worse_than: {5: 0.4, 10: 0.6}}'

    It is no part of a run's address and cannot change a number of what it lets through: the run is halted between two epochs with its
    checkpoint, its record says so (status halted, no test figures), and whoever asks for the run again goes on where it stood.

    Args:
        metric: a column of metrics.csv, measured on validation or training images.
        mode: whether more (`max`) or less (`min`) is better.
        worse_than: {epoch: value}, epochs counted from 1. Other epochs, and those without the metric (`trainer.val_every`), halt nothing.

    Raises ValueError: a metric of test images, an epoch below 1, a value that is no number.
    """

    order = CHECKPOINT - 1  # the epoch is in the history, and the checkpoint is yet to come
    reads_row = True

    def __init__(self, *, worse_than: Mapping[Any, Any], metric: str = "val/acc", mode: Literal["max", "min"] = "max") -> None:
        if metric.startswith("test/"):
            raise ValueError(f"metric={metric}: a run cannot be halted by test images; take val/acc or val/nll")
        try:  # a record has text for keys
            self.worse_than = {int(str(epoch)): float(value) for epoch, value in worse_than.items()}
        except (TypeError, ValueError):
            raise ValueError(f"worse_than={dict(worse_than)}: must be epochs with numbers, such as {{5: 0.4}}") from None
        if any(epoch < 1 for epoch in self.worse_than):
            raise ValueError(f"worse_than={dict(worse_than)}: epochs count from 1")
        self.metric, self.mode = metric, mode

    def reason(self, history: Sequence[Mapping[str, float]]) -> str:
        """Why a run that has come to the end of `history` (epochs from 0, as the learner keeps it) is halted; empty: it goes on."""
        row = history[-1] if history else {}
        epoch = int(row.get("epoch", -1)) + 1
        if epoch not in self.worse_than or self.metric not in row:
            return ""
        best, bar = None, self.worse_than[epoch]
        for one in history:
            best = one[self.metric] if is_better(one.get(self.metric), best, self.mode) else best
        if best is not None and not is_better(bar, best, self.mode):
            return ""
        return f"{self.metric} is {math.nan if best is None else best:.4g} after epoch {epoch}, worse than {bar:.4g}"

    def on_epoch_end(self, learner: "Learner", row: dict[str, float]) -> None:
        if why := learner.trainer.strategy.broadcast(self.reason(learner.history)):  # the first process alone has validated
            learner.halt(why)
