"""Pruning by what channels do: a statistic of every channel's activations, gathered in training.   Legend: B batch, C channels, H, W."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attnlab.pruning.norms import NormMasks

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class ActivityPruning:
    """Base of callbacks that prune channels by their activations, those after the ReLU that follows a batch norm, over an epoch's images.

    A subclass says what counts of an image, `count(a_BC...) -> (B, C)`, and, at every epoch's end, which channels stay,
    `choose(shares) -> {name: (C,)}` given the mean count (C,) by batch norm, or {} for no change. What is masked stays masked.
    Logged: `channels/kept`, a share.
    """

    every = 1
    single = True

    def __init__(self, at: Sequence[str]) -> None:
        self.at = [at] if isinstance(at, str) else list(at)

    def count(self, a: Tensor) -> Tensor:
        raise NotImplementedError

    def choose(self, learner: "Learner", shares: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        raise NotImplementedError

    def on_fit_start(self, learner: "Learner") -> None:
        self.masks = NormMasks(learner.network.backbone, self.at, where=f"callback {type(self).__name__}")
        self.gathered = {name: Gathered(self.count, norm.weight) for name, norm in self.masks.norms.items()}
        for name, norm in self.masks.norms.items():
            norm.register_forward_hook(self.gathered[name])

    def on_step(self, learner: "Learner", step: int) -> None:
        self.masks.apply()

    @torch.no_grad()
    def on_epoch_end(self, learner: "Learner", row: dict[str, float]) -> None:
        shares = {name: one.take(together=learner.settings.world_size > 1) for name, one in self.gathered.items()}
        self.masks.keep(self.choose(learner, shares))
        row["channels/kept"] = float(self.masks.share())

    def state_dict(self) -> dict[str, Any]:
        """At an epoch's end nothing is gathered."""
        return {"masks": self.masks.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.masks.load_state_dict(state["masks"])


class Gathered:
    """A forward hook that sums `count` of the activations over images, in training mode. Nothing is read from the device."""

    def __init__(self, count: Any, like_C: Tensor) -> None:
        self.count = count
        self.sum_C = torch.zeros_like(like_C, requires_grad=False)
        self.images = torch.zeros_like(self.sum_C[0])

    def __call__(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        if module.training:
            with torch.no_grad():
                # in the weight's precision, not autocast's: a mean over the map and a sum over images in bf16 have three digits
                self.sum_C.add_(self.count(output.to(self.sum_C.dtype).relu()).sum(0))
                self.images.add_(len(output))

    def take(self, *, together: bool) -> Tensor:
        """The mean so far (C,), of all processes; from now on it starts anew."""
        both = torch.cat([self.sum_C, self.images[None]])
        if together:
            torch.distributed.all_reduce(both)
        self.sum_C.zero_(), self.images.zero_()
        return both[:-1] / both[-1].clamp_min(1)

    def __deepcopy__(self, memo: dict) -> "Gathered":
        return Gathered(self.count, self.sum_C)  # a copy of the network gathers for itself
