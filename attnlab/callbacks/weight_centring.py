"""Weight centring: filters of mean 0, and if asked of bounded length, after every step."""

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class WeightCentring:
    """After every update  w <- w - mean(w);  w <- w min(1, max_norm / |w|)  for every filter w of every convolution and Linear but `fc`.

    Our reading of what trains very deep networks without skip connections (Oyedotun et al., "Revisiting the training of very deep neural
    networks without skip connections", ICPR 2020): centred filters pass no mean on, a bound on their length keeps activations from growing.

    max_norm: > 0, or null for no bound. ValueError: not above 0. A filter of a single weight is not centred. Training starts from centred
    weights too; use it with `init=he` and leaky ReLUs, as they do.
    """

    every = 1
    single = True

    def __init__(self, *, max_norm: float | None = None) -> None:
        if max_norm is not None and not max_norm > 0:
            raise ValueError(f"max_norm must be above 0, or null, got {max_norm}")
        self.max_norm = max_norm

    def on_fit_start(self, learner: "Learner") -> None:
        layers = learner.network.backbone.named_modules()
        self.weights = [one.weight for name, one in layers if isinstance(one, nn.Linear | nn.modules.conv._ConvNd) and name != "fc"]
        if not learner.history:  # a run that goes on has been centred, and once more would change its last bits
            self.on_step(learner, 0)

    @torch.no_grad()
    def on_step(self, learner: "Learner", step: int) -> None:
        for weight in self.weights:
            dims = tuple(range(1, weight.ndim))
            if weight[0].numel() > 1:
                weight.sub_(weight.mean(dims, keepdim=True))
            if self.max_norm is not None:
                norm = torch.linalg.vector_norm(weight, dim=dims, keepdim=True)
                weight.mul_((self.max_norm / norm.clamp_min(1e-12)).clamp_max(1))
