"""Activation density: layers shrink to the share of their activations that is not 0.   Shapes: B batch, C channels, H, W."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnlab.pruning.activity import ActivityPruning

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class ActivationDensity(ActivityPruning):
    """Activation density driven pruning (Foldy-Porto, Venkatesha and Panda, arXiv 2002.02949), in training:

        AD_l = share of a layer's activations after the ReLU that are not 0, over an epoch, of the channels it still has
        once no AD_l has moved by `tolerance` or more in `patience` epochs:  C_l <- round(C_l AD_l),  and the densities settle anew

    Our reading in: the channels of the highest density stay; weights go on as they are; the test of saturation. The paper repeats until
    all densities are near 1 or accuracy falls; here until `stop`. `at` should name batch norms that a ReLU follows and, in residual
    networks, those inside of blocks (`**.bn1`), as the paper shrinks inner widths.

    Args:
        tolerance: > 0. patience: >= 1. stop: fraction of training after which no layer shrinks, in [0, 1]. at: globs over batch norms.

    Logged: `density/mean` over the layers, `channels/kept`. Raises ValueError: a value out of range; a glob that names no batch norm.
    """

    def __init__(self, *, tolerance: float = 0.005, patience: int = 3, stop: float = 0.7, at: Sequence[str] = ("**.bn1",)) -> None:
        if not tolerance > 0 or patience < 1 or not 0 <= stop <= 1:
            raise ValueError(f"tolerance must be above 0, patience at least 1, stop in [0, 1], got {tolerance}, {patience} and {stop}")
        super().__init__(at)
        self.tolerance, self.patience, self.stop = tolerance, patience, stop
        self.seen: list[list[float]] = []  # densities by layer, of the epochs since the last change

    def count(self, a: Tensor) -> Tensor:
        return (a > 0).to(a.dtype).flatten(2).mean(2) if a.ndim > 2 else a > 0

    def choose(self, learner: "Learner", shares: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        masks = self.masks.masks
        densities = torch.stack([(share_C * masks[name]).sum() / masks[name].sum() for name, share_C in shares.items()]).tolist()
        self.seen.append(densities)
        early = (learner.current_epoch + 1) / learner.settings.max_epochs <= self.stop
        if not early or len(self.seen) <= self.patience or not self.settled():
            return {}
        self.seen = []
        return {name: densest(share_C, masks[name], density) for (name, share_C), density in zip(shares.items(), densities)}

    def settled(self) -> bool:
        return all(abs(now - then) < self.tolerance for now, then in zip(self.seen[-1], self.seen[-1 - self.patience]))

    def on_epoch_end(self, learner: "Learner", row: dict[str, float]) -> None:
        super().on_epoch_end(learner, row)
        if self.seen:
            row["density/mean"] = sum(self.seen[-1]) / len(self.seen[-1])

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.seen = [list(one) for one in state["seen"]]


def densest(share_C: Tensor, mask_C: Tensor, density: float) -> Tensor:
    """Which round(C density) of the C channels that the mask has stay, at least one: those of the highest share."""
    num = max(round(int(mask_C.sum()) * density), 1)
    order = torch.where(mask_C > 0, share_C, -1).argsort(descending=True, stable=True)
    return torch.zeros_like(mask_C).index_fill_(0, order[:num], 1)
