"""History: the rows of all epochs, handed on as they come."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from attnlab.callbacks import RECORDING

if TYPE_CHECKING:
    from attnlab.training.learner import Learner

Row = dict[str, float]


class History:
    """Appends the epoch's row to `learner.history`; `on_row(row, history)` in the first process (metrics.csv, the logger)."""

    order = RECORDING

    def __init__(self, on_row: Callable[[Row, list[Row]], None] | None = None) -> None:
        self.on_row = on_row

    def on_epoch_end(self, learner: "Learner", row: Row) -> None:
        learner.history.append(row)
        if self.on_row and learner.trainer.is_global_zero:
            self.on_row(row, learner.history)
