"""Adversarial training: learn from images moved against the network."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from attnlab.algorithms.supervised import Supervised
from attnlab.config.targets import ConfigError
from attnlab.losses.adversarial import pgd

if TYPE_CHECKING:
    from attnlab.network import Output
    from attnlab.training.epoch import Batch
    from attnlab.training.learner import Learner


class AdversarialTraining(Supervised):
    """Training on PGD's images instead of the clean ones (Madry et al., arXiv 1706.06083):

        min_w mean_b max_{|d_b| <= eps} L(f_w(x_b + d_b), y_b)        the inner maximum by `attnlab.losses.adversarial.pgd`, cross-entropy

    from a uniformly random start in the l-infinity ball, in the range of pixels (points, as of two_moons, have none). A step costs
    1 + steps. `train/acc` is of the moved images.

    Args:
        epsilon: radius, step: of the attack, both > 0, in units of pixels in [0, 1]. The paper on CIFAR-10: 8/255 and 2/255.
        steps: of the attack, >= 1. The paper: 7.
        clean: in [0, 1], the share of each batch, its first images, that stays as it is. The paper: 0.

    Raises ValueError: a value out of range; ConfigError with components that rewrite labels, which the attack would not know.
    Differs from the paper's code in: the attack sees the network in eval mode and in fp32: batch norm's statistics are of the step alone.
    """

    eager = True

    takes_label_sets = False

    def __init__(
        self,
        shape: tuple[int, ...],
        mean: list[float],
        std: list[float],
        *,
        epsilon: float = 8 / 255,
        step: float = 2 / 255,
        steps: int = 7,
        clean: float = 0.0,
    ) -> None:
        if not (epsilon > 0 and step > 0) or steps < 1 or not 0 <= clean <= 1:
            raise ValueError("epsilon and step must be above 0, steps at least 1 and clean in [0, 1]")
        channels = (-1, *[1] * (len(shape) - 1))
        self.mean, self.std = (torch.tensor(values).view(channels) for values in (mean, std))
        self.is_image = len(shape) == 3
        self.epsilon, self.step, self.steps, self.clean = epsilon, step, steps, clean

    def setup(self, learner: "Learner") -> None:
        super().setup(learner)
        if writers := [placement.name for placement in learner.network.placed.placements if placement.writes]:
            raise ConfigError(f"{writers[0]} mixes labels, which algorithm=adversarial_training's attack would not know; drop one of them")
        mean, std = self.mean.to(learner.device), self.std.to(learner.device)
        self.box = {"low": -mean / std, "high": (1 - mean) / std} if self.is_image else {}
        self.radius, self.stride = self.epsilon / std, self.step / std

    def terms(self, learner: "Learner", batch: "Batch", teacher: "Output | None") -> "tuple[dict[str, Tensor], Output]":
        learner.network.eval()
        num = round(self.clean * len(batch.x))
        x, y = batch.x[num:], batch.y[num:]
        if len(x):
            start = self.radius * (2 * torch.rand_like(x) - 1)
            moved = pgd(learner.network, x, y, epsilon=self.radius, step=self.stride, steps=self.steps, start=start, **self.box)
            batch = batch._replace(x=torch.cat([batch.x[:num], moved]))
        learner.network.train()
        return super().terms(learner, batch, teacher)
