"""Snapshot ensemble: networks met on the way of one training, tested together."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from attnlab.ensemble import Ensemble
from attnlab.training.schedules import cycle_ends

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class Snapshots:
    """Snapshot ensemble (Huang et al., arXiv 1704.00109): the network at the end of every cycle of the learning rate is kept, and those
    of the last `members` cycles are tested as one `Ensemble`, the mean of their probabilities.

    The cycles are the schedule's to give: `schedule=cycles` with the same lengths. The paper: 5 to 6 cycles of 40 to 60 epochs, rate 0.1 to
    0.2. Until a cycle has ended, the network itself is tested. A member takes as much memory, and space in the checkpoint, as the network.

    Args:
        lengths: of the cycles, relative to each other, > 0. members: >= 1, or null for as many as there are cycles.

    Raises ValueError: no lengths, one not above 0, members below 1.
    """

    every = 1
    single = True

    one_label = True  # the mean is of softmaxes

    def __init__(self, *, lengths: Sequence[float] = (1, 1, 1, 1, 1), members: int | None = None) -> None:
        cycle_ends(list(lengths), 1)
        if members is not None and members < 1:
            raise ValueError(f"members must be at least 1, got {members}")
        self.lengths, self.members = list(lengths), members or len(lengths)

    def on_fit_start(self, learner: "Learner") -> None:
        self.network = learner.network
        self.ends = set(cycle_ends(self.lengths, learner.total_steps)[-self.members :])
        self.taken: list[nn.Module] = []

    def on_step(self, learner: "Learner", step: int) -> None:
        if step in self.ends:
            self.taken.append(copy.deepcopy(learner.network).requires_grad_(False))

    def tested(self, network: nn.Module) -> nn.Module:
        return Ensemble(self.taken) if self.taken else network

    def state_dict(self) -> dict[str, Any]:
        return {"taken": [one.state_dict() for one in self.taken]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.taken = []
        for weights in state["taken"]:
            one = copy.deepcopy(self.network).requires_grad_(False)
            one.load_state_dict(weights)
            self.taken.append(one)
