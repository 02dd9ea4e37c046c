"""Best: keep and test the epoch that did best on the validation images."""

import copy
import math
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from attnlab.callbacks import REACTING

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class Best:
    """The network of the epoch with the best `metric`, the earliest of equals, instead of the last epoch's.

    Args:
        metric: a column of the epoch's row. It must be measured on validation images (`data.val`): choosing an epoch by test images makes
            the test figure optimistic.
        mode: whether more (`max`) or less (`min`) is better.

    An epoch without the metric (`trainer.val_every`) or where it is NaN is no candidate. Raises ValueError: a metric of test images.
    """

    order = REACTING
    reads_row = True
    needs = ("val",)

    def __init__(self, *, metric: str = "val/acc", mode: Literal["max", "min"] = "max") -> None:
        if metric.startswith("test/"):
            raise ValueError(f"metric={metric}: an epoch cannot be chosen by test images; take val/acc or val/nll")
        self.metric, self.mode = metric, mode
        self.value, self.epoch, self.weights = None, None, {}

    def on_epoch_end(self, learner: "Learner", row: dict[str, float]) -> None:
        value = learner.trainer.strategy.broadcast(row.get(self.metric))
        if is_better(value, self.value, self.mode):
            self.value, self.epoch = value, int(row["epoch"])
            self.weights = {name: tensor.detach().clone() for name, tensor in learner.tested(now=True).state_dict().items()}
        if self.epoch is not None:
            row["best_epoch"] = float(self.epoch)

    def tested(self, network: nn.Module) -> nn.Module:
        if not self.weights:
            return network
        chosen = copy.deepcopy(network)
        chosen.load_state_dict(self.weights)
        return chosen

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value, "epoch": self.epoch, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value, self.epoch, self.weights = state["value"], state["epoch"], dict(state["weights"])


def is_better(value: float | None, than: float | None, mode: str, *, by: float = 0.0) -> bool:
    """Whether a figure improves on the best so far, by more than `by`."""
    if value is None or math.isnan(value):
        return False
    return than is None or (value > than + by if mode == "max" else value < than - by)
