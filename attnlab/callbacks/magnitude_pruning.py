"""Iterative magnitude pruning: train, drop the smallest weights, rewind the rest, train again.   Legend: N weights of all layers."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attnlab.config.suggest import nearest
from attnlab.placement.places import matches
from attnlab.training.schedules import cycle_ends

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class MagnitudePruning:
    """Iterative magnitude pruning with rewinding (Frankle et al., arXiv 1912.05671; Renda et al., 2003.02389) in rounds of one run:

        after each round but the last: drop the `rate` smallest |w| of all that remain, over all layers together;
        weights <- those after `rewind`, times the mask; the optimizer's momentum <- 0; the next round

    AccIMP (Zullich et al., "Speeding-up pruning for artificial neural networks", ICPR 2020): rounds in between are less than half as long,
    `lengths: [1, 0.5, 0.5, 1]`. After n prunings (1 - rate)^n of the weights remain. The learning rate starts anew with every round where
    the schedule does: `schedule=cycles` with the same lengths.

    Args:
        lengths: of the rounds, relative to each other, > 0; two or more.
        rate: in (0, 1). The papers: 0.2.
        rewind: fraction of the first round, in [0, 1), to whose weights the network goes back; 0: those of the start. null: no rewinding,
            the weights go on as they are (with `schedule=cycles` this is learning rate rewinding).
        at: globs over the backbone's convolutions and linear layers. Biases and norms are left alone, as in the papers.

    Raises ValueError: out of range; fewer than two rounds; a glob that names no layer. Our reading of AccIMP in: the rewinding point and
    the schedule of shortened rounds, which the abstract leaves open. Logged: `weights/kept`, a share.
    """

    every = 1
    single = True

    def __init__(
        self,
        *,
        lengths: Sequence[float] = (1, 1, 1, 1, 1),
        rate: float = 0.2,
        rewind: float | None = 0.0,
        at: Sequence[str] = ("**",),
    ) -> None:
        cycle_ends(list(lengths), 1)
        if len(lengths) < 2 or not 0 < rate < 1:
            raise ValueError(f"lengths must name two rounds or more and rate be in (0, 1), got {list(lengths)} and {rate}")
        if rewind is not None and not 0 <= rewind < 1:
            raise ValueError(f"rewind must be a fraction of the first round in [0, 1), or null, got {rewind}")
        self.lengths, self.rate, self.rewind = list(lengths), rate, rewind
        self.at = [at] if isinstance(at, str) else list(at)

    def on_fit_start(self, learner: "Learner") -> None:
        layers = {
            name: one for name, one in learner.network.backbone.named_modules() if isinstance(one, nn.Linear | nn.modules.conv._ConvNd)
        }
        for pattern in self.at:
            if not matches(pattern, list(layers)):
                raise ValueError(f"callback magnitude_pruning.at: no layer matches {pattern!r}; {nearest(pattern, layers)}")
        self.weights = [layers[name].weight for name in dict.fromkeys(n for pattern in self.at for n in matches(pattern, list(layers)))]
        self.masks = [torch.ones_like(weight, requires_grad=False) for weight in self.weights]
        self.ends = cycle_ends(self.lengths, learner.total_steps)[:-1]
        self.point = None if self.rewind is None else round(self.rewind * self.ends[0])
        self.parameters = list(learner.network.parameters())
        self.past = [parameter.detach().clone() for parameter in self.parameters] if self.point == 0 else []

    @torch.no_grad()
    def on_step(self, learner: "Learner", step: int) -> None:
        if step in self.ends:
            share = (1 - self.rate) ** (1 + self.ends.index(step))
            for mask, chosen in zip(self.masks, largest(self.weights, self.masks, share=share)):
                mask.copy_(chosen)
            if self.past:
                torch._foreach_copy_(self.parameters, self.past)
            learner.optimizer.state.clear()
        torch._foreach_mul_(self.weights, self.masks)
        if step == self.point:
            self.past = [parameter.detach().clone() for parameter in self.parameters]

    def on_epoch_end(self, learner: "Learner", row: dict[str, float]) -> None:
        kept = sum(mask.sum() for mask in self.masks)
        row["weights/kept"] = float(kept) / sum(mask.numel() for mask in self.masks)

    def state_dict(self) -> dict[str, Any]:
        return {"masks": self.masks, "past": self.past}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for mask, value in zip(self.masks, state["masks"]):
            mask.copy_(value)
        self.past = [value.to(like.device) for value, like in zip(state["past"], self.parameters)]


def largest(weights: Sequence[Tensor], masks: Sequence[Tensor], *, share: float) -> list[Tensor]:
    """Masks of the round(share N) weights of largest magnitude among those not masked, over all tensors together; exactly so many."""
    size_N = torch.cat([torch.where(mask > 0, weight.abs(), -1).flatten() for weight, mask in zip(weights, masks)])
    chosen_N = torch.zeros_like(size_N).index_fill_(0, size_N.topk(round(share * len(size_N)), sorted=False).indices, 1)
    return [part.view_as(mask) for part, mask in zip(chosen_N.split([mask.numel() for mask in masks]), masks)]
