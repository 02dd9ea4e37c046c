"""SWA: test the mean of the weights of the last epochs."""

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class SWA:
    """Stochastic weight averaging (Izmailov et al., arXiv 1803.05407), by torch.optim.swa_utils.

        a = mean of the weights at the end of every epoch from `start` on

    After the last epoch batch norm's statistics are taken anew, in one pass over the training images as they are augmented in that epoch.
    The average is validated and tested; training does not see it. The paper's cyclic or constant rate is the schedule's to give
    (`schedule=constant`, say).

    Args:
        start: fraction of the epochs after which averaging begins, in [0, 1). The paper: 0.75.

    Raises ValueError: start out of range. Under DDP the statistics are those of the first process's share of the images.
    """

    single = True

    def __init__(self, *, start: float = 0.75) -> None:
        if not 0 <= start < 1:
            raise ValueError(f"start must be a fraction of training in [0, 1), got {start}")
        self.start = start
        self.count = 0

    def on_fit_start(self, learner: "Learner") -> None:
        self.average = AveragedModel(learner.network)
        self.count = 0

    def on_epoch_end(self, learner: "Learner", row: dict[str, float]) -> None:
        if learner.current_epoch + 1 > self.start * learner.settings.max_epochs:
            self.average.update_parameters(learner.network)
            self.count += 1
        if learner.last_epoch and self.count:
            with learner.settings.autocast(), torch.no_grad():
                update_bn(learner.train_batches(), self.average)

    def tested(self, network: nn.Module) -> nn.Module:
        return self.average.module if self.count else network

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "average": self.average.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        self.average.load_state_dict(state["average"])
