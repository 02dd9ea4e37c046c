"""Population gradients: the mean over an obvious loop, plain SGD at sigma 0, statistics of the centre."""

import copy

import pytest
import torch
from torch.nn import functional as F

from attnlab.algorithms.population_gradient import PopulationGradient
from attnlab.training.seeding import mixed_seed
from tests.reference.small_learner import backbone, batches, small_learner, take


def test_sigma_0_is_the_plain_step() -> None:
    network = backbone()
    learners = [small_learner(PopulationGradient(sigma=0.0), network=copy.deepcopy(network)), small_learner(network=copy.deepcopy(network))]
    for learner in learners:
        take(learner, batches(3))
    one, other = (learner.state_dict() for learner in learners)
    assert all(torch.equal(one[name], value) for name, value in other.items())


def test_a_step_is_the_loop() -> None:
    first, second = batches(2)
    network = backbone()
    plain = copy.deepcopy(network)
    learner = small_learner(PopulationGradient(population=3, sigma=0.2), network=network)
    for step, batch in enumerate((first, second)):
        before = copy.deepcopy(plain).train()
        generator = torch.Generator().manual_seed(mixed_seed(1, step, 0))
        gradients = [torch.zeros_like(weight) for weight in plain.parameters()]
        for _ in range(3):
            moved = copy.deepcopy(before)
            for weight in moved.parameters():
                noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
                weight.data += 0.2 * weight.detach().square().mean().sqrt() * noise
            for total, gradient in zip(gradients, torch.autograd.grad(F.cross_entropy(moved(batch.x), batch.y), list(moved.parameters()))):
                total += gradient / 3
        plain.train()(batch.x)  # the centre's statistics
        for weight, gradient in zip(plain.parameters(), gradients):
            weight.data -= 0.1 * gradient
        learner.totals.steps = step
        learner.step(batch, learner.totals)
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(learner.network.backbone.state_dict()[name], value, rtol=1e-10, atol=1e-12)
        learner.totals.steps = step + 1


def test_values_out_of_range() -> None:
    with pytest.raises(ValueError, match="population must be at least 1"):
        PopulationGradient(population=0)
