"""A learner of a small fp64 network on vectors, for tests of what happens in a step."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from attnlab.algorithms.supervised import Supervised
from attnlab.losses.cross_entropy import CrossEntropy
from attnlab.network import Network
from attnlab.training.epoch import Batch, EpochSums
from attnlab.training.learner import Learner
from attnlab.training.schedules import constant
from attnlab.training.settings import Settings

CLASSES, DIM = 3, 5


def backbone(*, norm: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    middle = [nn.BatchNorm1d(8)] if norm else []
    return nn.Sequential(nn.Linear(DIM, 8), *middle, nn.Tanh(), nn.Linear(8, CLASSES)).double()


def small_learner(
    algorithm: Any = None, *, network: nn.Module | None = None, callbacks: Mapping[str, Any] | None = None, epochs: int = 2, **options: Any
) -> Learner:
    """In training mode, ready for its first step; 4 steps an epoch, SGD."""
    learner = Learner(
        Network(network or backbone(), shape=(DIM,)),
        CrossEntropy(CLASSES, 1),
        optimizer=partial(torch.optim.SGD, **{"lr": 0.1, **options}),
        schedule=constant,
        settings=Settings(accelerator="cpu", precision=32, max_epochs=epochs),
        algorithm=algorithm or Supervised(),
        callbacks=callbacks,
        seed=1,
    )
    learner.steps_per_epoch = 4
    learner.configure_optimizers()
    learner.prepare()
    return learner.train()


def batches(num: int, *, size: int = 6) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    draw = [(torch.randn(size, DIM, generator=generator), torch.randint(CLASSES, (size,), generator=generator)) for _ in range(num)]
    return [Batch(x.double(), y, torch.arange(size)) for x, y in draw]


def take(learner: Learner, given: list[Batch]) -> EpochSums:
    """Steps on these batches, with what callbacks do after each."""
    learner.totals = EpochSums()
    for batch in given:
        learner.step(batch, learner.totals)
        learner.after_step(learner.totals.steps)
    return learner.totals
