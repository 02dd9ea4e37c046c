"""Mean teacher: learn from unlabelled images by agreeing with an average of oneself.   Shapes: B batch, K classes, D features."""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attnlab.algorithms.supervised import Supervised
from attnlab.config.targets import ConfigError
from attnlab.losses.consistency import local_clustering, ramp_up, softmax_mse

if TYPE_CHECKING:
    from attnlab.network import Output
    from attnlab.training.epoch import Batch
    from attnlab.training.learner import Learner


class MeanTeacher(Supervised):
    """Mean teacher (Tarvainen and Valpola, arXiv 1703.01780); with `clustering` also local clustering (LC-MT, Chen et al., 2004.09665).

        L = L(labelled images) + w r(t; T) MSE(softmax(z), softmax(z')) + w_c r(t - t_c; T_c) LC(f),   a <- d a + (1 - d) w after a step

    z' is what the teacher, of weights a, says of the same images under noise of its own; both networks are in training mode and each keeps
    its own batch norm statistics. t counts epochs, r rises from 0 to 1 (`attnlab.losses.consistency.ramp_up`). Terms `consistency`,
    `clustering`; the loss's own terms are over the labelled images and 0 in a batch without any. The teacher is what is tested.

    `data.labels=n` leaves all training images but n unlabelled (y = -1); without it all labels count, and the images still have to agree.

    Args:
        decay: d in [0, 1). LC-MT: 0.99 for CIFAR-10, 0.995 for SVHN. Below it in early steps: d_n = min(d, 1 - 1 / (n + 1)).
        weight: w >= 0. ramp: T, epochs, >= 0.
        noise: standard deviation of the normal noise on the normalised images, for each network its own (1703.01780: 0.15).
        clustering: w_c >= 0; 0: no such term. LC-MT: 10 for CIFAR-10. radius: of neighbours, in squared units of a feature: 40 to 50 there.
        clustering_start, clustering_ramp: t_c, T_c as fractions of training. LC-MT: 600 and 100 of 1000 epochs.

    Raises ValueError: a value out of range; clustering where the network names no features. ConfigError: components that mix images.
    Differs from the authors' code in: one batch of labelled and unlabelled images as they come, where theirs have a fixed share of labelled
    ones; teacher and student see one augmentation and differ by noise and dropout.
    """

    takes_unlabelled = True

    takes_label_sets = False

    def __init__(
        self,
        steps_per_epoch: int = 1,
        total_steps: int = 1,
        *,
        decay: float = 0.99,
        weight: float = 100.0,
        ramp: float = 5.0,
        noise: float = 0.15,
        clustering: float = 0.0,
        radius: float = 50.0,
        clustering_start: float = 0.6,
        clustering_ramp: float = 0.1,
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        if not all(value >= 0 for value in (weight, ramp, noise, clustering)) or not radius > 0:
            raise ValueError("weight, ramp, noise and clustering must be 0 or more, radius above 0")
        if not 0 <= clustering_start <= 1 or not 0 <= clustering_ramp <= 1:
            raise ValueError("clustering_start and clustering_ramp must be fractions of training in [0, 1]")
        self.epochs = total_steps / steps_per_epoch
        self.decay, self.weight, self.ramp, self.noise = decay, weight, ramp, noise
        self.clustering, self.radius = clustering, radius
        self.clustering_start, self.clustering_ramp = clustering_start, clustering_ramp
        self.asks = ("progress",)

    def setup(self, learner: "Learner") -> None:
        super().setup(learner)
        writers = [placement.name for placement in learner.network.placed.placements if placement.writes]
        if writers and learner.optimizer:  # a trained network can be tested all the same
            raise ConfigError(f"{writers[0]} mixes the student's images, and algorithm=mean_teacher's teacher sees them unmixed; drop one")
        self.average = copy.deepcopy(learner.network).requires_grad_(False)
        self.pairs = tuple(zip(*zip(self.average.parameters(), learner.network.parameters(), strict=True), strict=True))

    def terms(self, learner: "Learner", batch: "Batch", teacher: "Output | None") -> "tuple[dict[str, Tensor], Output]":
        labelled_B = batch.y >= 0
        out = learner.output(self.noisy(batch.x), batch.y)
        terms = {name: torch.where(labelled_B.any(), value, 0) for name, value in learner.terms(out, batch, teacher).items()}
        with torch.no_grad():
            reference_BK = self.average.train()(self.noisy(batch.x)).logits
        terms["consistency"] = self.weight * ramp_up(learner.progress * self.epochs, self.ramp) * softmax_mse(out.logits, reference_BK)
        if self.clustering:
            if out.features is None:
                raise ValueError("clustering gathers features, and the network names no `features` place; set algorithm.clustering=0")
            rise = ramp_up(learner.progress - self.clustering_start, self.clustering_ramp)
            term = local_clustering(out.features.flatten(1), labelled_B, radius=self.radius)
            terms["clustering"] = self.clustering * rise * term
        return terms, out

    def noisy(self, x: Tensor) -> Tensor:
        return x + self.noise * torch.randn_like(x) if self.noise else x

    def update(self, learner: "Learner", closure: Callable[[], None]) -> None:
        super().update(learner, closure)
        with torch.no_grad():
            torch._foreach_lerp_(*self.pairs, 1 - min(self.decay, 1 - 1 / (learner.totals.steps + 2)))

    def tested(self) -> nn.Module:
        return self.average

    def state_dict(self) -> dict[str, Any]:
        return self.average.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average.load_state_dict(state)
