"""Sharpness-aware minimisation: the gradient at the worst point nearby."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from attnlab.algorithms.supervised import Supervised

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class SAM(Supervised):
    """Two passes a step: climb to the sharpest point within `rho`, update by the gradient found there (Foret et al., arXiv 2010.01412).

        g = grad L(w);   e = rho t(w)^2 g / (||t(w) g|| + 1e-12);   w <- w - lr grad L(w + e)

    t(w) = 1, or |w| where `adaptive` (ASAM, Kwon et al., arXiv 2102.11600): the neighbourhood then scales with each weight. The norm is
    over all parameters together, those of the loss included. Both passes see the same batch and repeat the same random draws.

    Args:
        rho: radius, > 0. SAM: 0.05 on CIFAR. ASAM needs about ten times as much (0.5 to 2).
        adaptive: scale the neighbourhood by the weights.

    A step costs two. Raises ValueError: rho not above 0. Precision 16-mixed is refused (a scaled gradient has no norm to climb by).
    Differs from the authors' code in: running statistics (batch norm's, a loss's class means) are those of the first pass alone, as in
    the common PyTorch port, which sets their momentum to 0; a gradient clip acts on the second gradient; under DDP the climb follows the
    averaged gradient of all processes, where the paper climbs on each shard by itself.
    """

    num_passes = 2

    def __init__(self, *, rho: float = 0.05, adaptive: bool = False) -> None:
        if not 0 < rho < float("inf"):
            raise ValueError(f"rho must be above 0, got {rho}")
        self.rho, self.adaptive = rho, adaptive

    def setup(self, learner: "Learner") -> None:
        super().setup(learner)
        self.parameters = [parameter for parameter in learner.parameters() if parameter.requires_grad]
        self.buffers = list(learner.buffers())

    @torch.no_grad()
    def update(self, learner: "Learner", closure: Callable[[], None]) -> None:
        with torch.enable_grad():
            closure()
        moved = [parameter for parameter in self.parameters if parameter.grad is not None]
        before, statistics = [parameter.clone() for parameter in moved], [buffer.clone() for buffer in self.buffers]
        torch._foreach_add_(moved, self.climb(moved))
        with torch.enable_grad():
            closure()
        torch._foreach_copy_(moved, before)
        if statistics:
            torch._foreach_copy_(self.buffers, statistics)
        learner.apply_gradients()

    def climb(self, parameters: list[torch.Tensor]) -> list[torch.Tensor]:
        """e, a tensor a parameter, from the gradients there are."""
        gradients = [parameter.grad for parameter in parameters]
        weights = torch._foreach_abs(parameters) if self.adaptive else None
        weighted = torch._foreach_mul(gradients, weights) if weights else gradients
        norm = torch.stack(torch._foreach_norm(weighted)).norm()
        direction = torch._foreach_mul(weighted, weights) if weights else gradients
        return list(torch._foreach_mul(direction, self.rho / (norm + 1e-12)))
