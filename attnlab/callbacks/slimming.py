"""Network slimming: batch norm's scales under an l1 penalty say which channels are worth keeping.   Shapes: C channels, N of all layers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnlab.pruning.norms import NormMasks

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class Slimming:
    """Network slimming (Liu et al., arXiv 1708.06519): a gate a channel, which is batch norm's scale.

        g_gamma <- g_gamma + weight sign(gamma)          until `prune`, in every step
        m = 1[|gamma| >= sorted(|gamma|)[round(N rate)]]  once, over all N together (one stays at least); what remains trains on

    It is our stand-in for SSPruning (Joo et al., "Slimming ResNet by slimming shortcut", ICPR 2020), whose importance gates are not known
    to us: with `at` naming the batch norms of shortcuts, too, their channels are ranked with the rest.

    Args:
        weight: >= 0, of the l1 penalty's subgradient. The paper: 1e-4 (CIFAR), 1e-5.
        rate: in [0, 1), the share of channels that goes. The paper: 0.4 to 0.7.
        prune: fraction of training after which that is, in [0, 1].
        at: globs over the backbone's batch norms.

    Raises ValueError: a value out of range; a glob that names no batch norm. A layer whose channels would all go keeps them.
    Differs from the authors' code in: pruning and the training after it are one run, the masked channels' weights staying in place.
    Logged: `channels/kept`, a share.
    """

    every = 1
    single = True

    def __init__(self, *, weight: float = 1e-4, rate: float = 0.5, prune: float = 0.6, at: Sequence[str] = ("**",)) -> None:
        if not weight >= 0 or not 0 <= rate < 1 or not 0 <= prune <= 1:
            raise ValueError(f"weight must be 0 or more, rate in [0, 1) and prune in [0, 1], got {weight}, {rate} and {prune}")
        self.weight, self.rate, self.prune = weight, rate, prune
        self.at = [at] if isinstance(at, str) else list(at)

    def on_fit_start(self, learner: "Learner") -> None:
        self.masks = NormMasks(learner.network.backbone, self.at, where="callback slimming")
        self.scales = [norm.weight for norm in self.masks.norms.values()]
        self.step = round(self.prune * learner.total_steps)

    @torch.no_grad()
    def on_gradients(self, learner: "Learner", step: int) -> None:
        if step < self.step and self.weight:
            found = [scale for scale in self.scales if scale.grad is not None]
            torch._foreach_add_([scale.grad for scale in found], torch._foreach_sign(found), alpha=self.weight)

    @torch.no_grad()
    def on_step(self, learner: "Learner", step: int) -> None:
        if step == max(self.step, 1):
            size_N = torch.cat(self.scores())
            threshold = size_N.sort().values[min(round(len(size_N) * self.rate), len(size_N) - 1)]
            self.masks.keep({name: size_C >= threshold for name, size_C in zip(self.masks.norms, size_N.split(self.masks.sizes))})
        elif step > self.step:
            self.masks.apply()

    def scores(self) -> list[Tensor]:
        """By which channels are ranked, a tensor (C,) a layer."""
        return [scale.abs() for scale in self.scales]

    def on_epoch_end(self, learner: "Learner", row: dict[str, float]) -> None:
        row["channels/kept"] = float(self.masks.share())

    def state_dict(self) -> dict[str, Any]:
        return self.masks.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.masks.load_state_dict(state)
