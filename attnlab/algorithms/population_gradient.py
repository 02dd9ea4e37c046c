"""Population gradients: the mean gradient of networks around the present one."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from attnlab.algorithms.supervised import Supervised
from attnlab.training.seeding import mixed_seed

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class PopulationGradient(Supervised):
    """Our reading of Sakai et al., "Population gradients improve performance across data-sets and architectures" (arXiv 2010.12260), of
    which we know the abstract: the gradient is estimated from a population of networks around the weights.

        g = 1/P sum_p grad L(w + sigma rms(w) e_p),   e_p ~ N(0, I) for each weight tensor, rms(w) its own;   the optimizer steps w by g

    The centre w takes a pass of its own, which gives the logged loss and the running statistics; a step costs 1 + P. All passes see one
    batch and repeat the same random draws.

    Args:
        population: P >= 1. sigma: >= 0; 0 is the plain gradient. Both are ours (8, 0.01).

    Raises ValueError: a value out of range. 16-mixed is refused, as the passes' gradients are averaged.
    """

    def __init__(self, *, population: int = 8, sigma: float = 0.01) -> None:
        if population < 1 or not 0 <= sigma < float("inf"):
            raise ValueError(f"population must be at least 1 and sigma 0 or more, got {population} and {sigma}")
        self.population, self.sigma = population, sigma
        self.num_passes = 1 + population

    def setup(self, learner: "Learner") -> None:
        super().setup(learner)
        self.parameters = [parameter for parameter in learner.parameters() if parameter.requires_grad]
        self.buffers = list(learner.buffers())
        self.generator = torch.Generator(learner.device)

    @torch.no_grad()
    def update(self, learner: "Learner", closure: Callable[[], None]) -> None:
        with torch.enable_grad():
            closure()
        if self.sigma:
            self.generator.manual_seed(mixed_seed(learner.seed, learner.totals.steps, learner.global_rank))
            moved = [parameter for parameter in self.parameters if parameter.grad is not None]
            before, statistics = [one.clone() for one in moved], [buffer.clone() for buffer in self.buffers]
            mean = [torch.zeros_like(one) for one in moved]
            for _ in range(self.population):
                for one, centre in zip(moved, before):
                    noise = torch.randn(one.shape, generator=self.generator, device=one.device, dtype=one.dtype)
                    one.copy_(centre + self.sigma * centre.square().mean().sqrt() * noise)
                with torch.enable_grad():
                    closure()
                torch._foreach_add_(mean, [one.grad for one in moved], alpha=1 / self.population)
            torch._foreach_copy_(moved, before)
            torch._foreach_copy_([one.grad for one in moved], mean)
            if statistics:
                torch._foreach_copy_(self.buffers, statistics)
        learner.apply_gradients()
