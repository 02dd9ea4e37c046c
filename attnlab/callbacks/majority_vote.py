"""Majority voting: units that few images activate are pruned in training.   Shapes: B batch, C channels."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from attnlab.pruning.activity import ActivityPruning

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class MajorityVote(ActivityPruning):
    """Our reading of Alqahtani et al., "Neuron-based network pruning based on majority voting" (ICPR 2020): activations are compared among
    the units of a layer and become votes; units with few votes go while training goes on.

        vote_bc = 1[ a_bc > mean_c a_bc ],   a_bc: the mean over the map of what channel c gives after its ReLU for image b
        a channel goes where its share of votes over the epoch's images is below `share`

    Established: votes by comparison, pruning in training without pretraining or fine-tuning. Ours: the comparison with the mean, the
    threshold, the schedule.

    Args:
        share: in [0, 1). start, stop: fractions of training between which channels go, at the ends of epochs.
        at: globs over the backbone's batch norms.

    Raises ValueError: a value out of range; a glob that names no batch norm. A layer that would lose all channels keeps them.
    """

    def __init__(self, *, share: float = 0.05, start: float = 0.1, stop: float = 0.7, at: Sequence[str] = ("**",)) -> None:
        if not 0 <= share < 1 or not 0 <= start <= stop <= 1:
            raise ValueError(f"share must be in [0, 1) and 0 <= start <= stop <= 1, got {share}, {start} and {stop}")
        super().__init__(at)
        self.least, self.start, self.stop = share, start, stop

    def count(self, a: Tensor) -> Tensor:
        a_BC = a.flatten(2).mean(2) if a.ndim > 2 else a
        return a_BC > a_BC.mean(1, keepdim=True)

    def choose(self, learner: "Learner", shares: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        done = (learner.current_epoch + 1) / learner.settings.max_epochs
        return {name: share_C >= self.least for name, share_C in shares.items()} if self.start <= done <= self.stop else {}
