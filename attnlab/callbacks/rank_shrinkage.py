"""Nuclear norm minimisation: convolutions lose rank while they train."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from attnlab.config.suggest import nearest
from attnlab.placement.places import matches
from attnlab.pruning.tucker import ranks, shrunk

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class RankShrinkage:
    """Elastic tensor ranks (Ran et al., "Exploiting elasticity in tensor ranks for compressing neural networks", arXiv 2105.04218): nuclear
    norms of the unfoldings by output and by input channel are minimised with the loss; the ranks that are left make a Tucker-2.

        L = CE + weight sum_l ( |W_(O)|_* + |W_(I)|_* )

    Our reading in: the penalty acts by its proximal step once an epoch, singular values falling by weight times the sum of the epoch's
    learning rates, first of W_(O), then of W_(I); the ranks are those that hold `energy` of the squares of the singular values.
    `evaluator.cost.export=tucker` decomposes the network and says what that saves.

    Args:
        weight: >= 0 (1e-3, ours). energy: in (0, 1], for the log. at: globs over the backbone's convolutions; 1x1 ones are left alone.

    Logged: `ranks/kept`, ranks over full ranks, mean over unfoldings. Raises ValueError: out of range; a glob that names no such layer.
    """

    every = 1
    single = True

    def __init__(self, *, weight: float = 1e-3, energy: float = 0.99, at: Sequence[str] = ("**",)) -> None:
        if not weight >= 0 or not 0 < energy <= 1:
            raise ValueError(f"weight must be 0 or more and energy in (0, 1], got {weight} and {energy}")
        self.weight, self.energy, self.at = weight, energy, [at] if isinstance(at, str) else list(at)
        self.rate = 0.0  # the sum of the epoch's learning rates

    def on_fit_start(self, learner: "Learner") -> None:
        modules = learner.network.backbone.named_modules()
        layers = {name: one for name, one in modules if isinstance(one, nn.Conv2d) and one.groups == 1 and max(one.kernel_size) > 1}
        for pattern in self.at:
            if not matches(pattern, list(layers)):
                raise ValueError(f"callback rank_shrinkage.at: no convolution above 1x1 matches {pattern!r}; {nearest(pattern, layers)}")
        self.weights = [layers[name].weight for name in dict.fromkeys(n for pattern in self.at for n in matches(pattern, list(layers)))]

    def on_step(self, learner: "Learner", step: int) -> None:
        self.rate += learner.optimizer.param_groups[0]["lr"]

    @torch.no_grad()
    def on_epoch_end(self, learner: "Learner", row: dict[str, float]) -> None:
        shares = []
        for weight in self.weights:
            for mode in (0, 1) if self.weight else ():
                weight.copy_(shrunk(weight, mode, self.weight * self.rate))
            found = ranks(weight, energy=self.energy)
            full = [min(size, weight.numel() // size) for size in weight.shape[:2]]
            shares += [rank / most for rank, most in zip(found, full)]
        self.rate = 0.0
        row["ranks/kept"] = sum(shares) / len(shares)
