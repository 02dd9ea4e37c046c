"""Our reading of MLTP against double backward of an obvious loop, and at its limits."""

import copy

import pytest
import torch
from torch.nn import functional as F

from attnlab.algorithms.mltp import MLTP
from attnlab.config.targets import ConfigError
from tests.reference.small_learner import backbone, batches, small_learner, take


@pytest.mark.parametrize("second_order", [True, False])
def test_a_step_is_the_loop(second_order: bool) -> None:
    (batch,) = batches(1, size=8)
    network = backbone(norm=False)
    plain = copy.deepcopy(network)
    learner = small_learner(MLTP(alpha=0.3, beta=0.7, second_order=second_order), network=network)
    totals = take(learner, [batch])
    weights = list(plain.parameters())
    first = F.cross_entropy(plain(batch.x[:4]), batch.y[:4])
    gradients = torch.autograd.grad(first, weights, create_graph=True)
    gradients = gradients if second_order else [one.detach() for one in gradients]
    w1, b1, w2, b2 = (weight - 0.3 * gradient for weight, gradient in zip(weights, gradients))
    second = F.cross_entropy(torch.tanh(batch.x[4:] @ w1.mT + b1) @ w2.mT + b2, batch.y[4:])
    assert dict(zip(totals.names, totals.sums.tolist())) == pytest.approx({"ce": first.item(), "next_ce": 0.7 * second.item()}, rel=1e-6)
    for weight, gradient, found in zip(weights, torch.autograd.grad(first + 0.7 * second, weights), learner.network.parameters()):
        torch.testing.assert_close(found.detach(), weight.detach() - 0.1 * gradient, rtol=1e-10, atol=1e-12)


def test_without_the_second_part_it_is_the_plain_step_on_the_first_half() -> None:
    (batch,) = batches(1, size=8)
    network = backbone()
    learners = [small_learner(MLTP(beta=0.0), network=copy.deepcopy(network)), small_learner(network=copy.deepcopy(network))]
    take(learners[0], [batch])
    take(learners[1], [batch._replace(x=batch.x[:4], y=batch.y[:4], index=batch.index[:4])])
    for one, other in zip(learners[0].network.parameters(), learners[1].network.parameters()):
        assert torch.equal(one, other)


def test_without_an_inner_step_it_is_the_sum_over_both_halves() -> None:
    (batch,) = batches(1, size=8)
    network = backbone(norm=False)
    learners = [small_learner(MLTP(alpha=0.0), network=copy.deepcopy(network)), small_learner(network=copy.deepcopy(network), lr=0.2)]
    for learner in learners:
        take(learner, [batch])
    for one, other in zip(learners[0].network.parameters(), learners[1].network.parameters()):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_compilation_is_refused_where_it_is_asked_for(run) -> None:
    with pytest.raises(ConfigError, match=r"MLTP takes gradients within its terms, which torch\.compile cannot trace"):
        run("algorithm=mltp", "trainer.compile=default")


def test_values_out_of_range() -> None:
    with pytest.raises(ValueError, match="alpha and beta must be"):
        MLTP(beta=-1)
