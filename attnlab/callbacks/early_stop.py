"""Early stopping: end training when the validation images have said for long that it does not get better."""

from typing import TYPE_CHECKING, Any, Literal

from attnlab.callbacks import REACTING
from attnlab.callbacks.best import is_better

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class EarlyStop:
    """Stop after `patience` validations in a row without an improvement of `metric` by more than `min_delta`.

    The last epoch's network is tested; `callback=[early_stop,best]` tests the best one. Schedules go by `trainer.max_epochs`, so a run that
    stops early has not seen the end of its schedule. Raises ValueError: patience below 1, min_delta below 0, a metric of test images.
    """

    order = REACTING + 1
    reads_row = True
    needs = ("val",)

    def __init__(self, *, metric: str = "val/acc", mode: Literal["max", "min"] = "max", patience: int = 10, min_delta: float = 0.0) -> None:
        if patience < 1 or not min_delta >= 0:
            raise ValueError(f"patience must be at least 1 and min_delta at least 0, got {patience} and {min_delta}")
        if metric.startswith("test/"):
            raise ValueError(f"metric={metric}: training cannot be ended by test images; take val/acc or val/nll")
        self.metric, self.mode, self.patience, self.min_delta = metric, mode, patience, min_delta
        self.value, self.waited = None, 0

    def on_epoch_end(self, learner: "Learner", row: dict[str, float]) -> None:
        value = learner.trainer.strategy.broadcast(row.get(self.metric))
        if value is None:
            return
        if is_better(value, self.value, self.mode, by=self.min_delta):
            self.value, self.waited = value, 0
        else:
            self.waited += 1
        if self.waited >= self.patience:
            learner.stop()

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "waited": self.waited}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.waited = state["value"], state["waited"]
