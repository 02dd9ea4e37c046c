"""EMA: test an exponential moving average of the weights."""

import copy
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class EMA:
    """An average of the network's weights over the steps; it is validated, tested and saved beside the network itself.

        a <- d a + (1 - d) w   after every step,   d = min(decay, (1 + n) / (10 + n)) in step n where `warmup`, else decay

    (Polyak and Juditsky 1992; the decay of Tarvainen and Valpola, arXiv 1703.01780.) Training does not see it.

    Args:
        decay: in [0, 1). Half of the average is younger than 0.69 / (1 - decay) steps: 693 for 0.999.
        warmup: follow quickly at first; else the first steps weigh `decay ** n` at the end of a short run.
        buffers: what becomes of batch norm's running statistics: `average` as the weights (timm), `copy` the network's (1703.01780's code).

    Raises ValueError: decay out of range. Integer buffers are copied.
    Why not torch.optim.swa_utils.AveragedModel: it reads its counter from the device in every step.
    """

    every = 1
    single = True

    def __init__(self, *, decay: float = 0.999, warmup: bool = True, buffers: Literal["average", "copy"] = "average") -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        self.decay, self.warmup, self.buffers = decay, warmup, buffers

    def on_fit_start(self, learner: "Learner") -> None:
        self.network = copy.deepcopy(learner.network).requires_grad_(False)
        pairs = list(zip(self.network.parameters(), learner.network.parameters(), strict=True))
        copied = []
        for own, theirs in zip(self.network.buffers(), learner.network.buffers(), strict=True):
            averaged = self.buffers == "average" and own.is_floating_point()
            (pairs if averaged else copied).append((own, theirs))
        self.pairs, self.copied = _columns(pairs), _columns(copied)

    @torch.no_grad()
    def on_step(self, learner: "Learner", step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        torch._foreach_lerp_(*self.pairs, 1 - decay)
        if self.copied[0]:
            torch._foreach_copy_(*self.copied)

    def tested(self, network: nn.Module) -> nn.Module:
        return self.network

    def state_dict(self) -> dict[str, Any]:
        return self.network.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state)


def _columns(pairs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
    return [own for own, _ in pairs], [theirs for _, theirs in pairs]
