"""Norm loss against a loop over filters and its closed-form gradient, in fp64."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attnlab.regularizers.norm_loss import NormLoss


def network():
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, groups=6), nn.Flatten(), nn.Linear(6, 4)).double()


def slow(net, weight):
    total = 0.0
    for index in (0, 2, 4):
        for filter in net[index].weight:
            total += (1 - sum(v**2 for v in filter.flatten().tolist()) ** 0.5) ** 2
    return weight * total


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), weight=st.floats(0, 10))
def test_equals_the_loop_and_the_closed_gradient(seed, weight):
    torch.manual_seed(seed)
    net = network()
    penalty = NormLoss(weight=weight)(net)
    assert penalty.shape == () and penalty.item() == pytest.approx(slow(net, weight))
    penalty.backward()
    for index in (0, 2, 4):
        w = net[index].weight.detach()
        norm = w.flatten(1).norm(dim=1).view(-1, *[1] * (w.ndim - 1))
        torch.testing.assert_close(net[index].weight.grad, 2 * weight * (1 - 1 / norm) * w)
    assert net[1].weight.grad is None and net[4].bias.grad is None


def test_unit_filters_cost_nothing():
    net = network()
    with torch.no_grad():
        for index in (0, 2, 4):
            w = net[index].weight
            w.div_(w.flatten(1).norm(dim=1).view(-1, *[1] * (w.ndim - 1)))
    penalty = NormLoss()(net)
    penalty.backward()
    assert penalty.item() == pytest.approx(0, abs=1e-20)
    assert net[0].weight.grad.abs().max() < 1e-14


@pytest.mark.parametrize("start", [0.5, 2.0])
def test_descent_brings_the_norm_to_one_monotonically(start):
    layer = nn.Linear(5, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.mul_(start / layer.weight.norm())
    distances = []
    for _ in range(30):
        layer.zero_grad()
        NormLoss(weight=1.0)(layer).backward()
        with torch.no_grad():
            layer.weight.sub_(0.1 * layer.weight.grad)
        distances.append(abs(1 - layer.weight.norm().item()))
    assert all(a > b for a, b in itertools.pairwise(distances)) and distances[-1] < 1e-2


def test_zero_filter_has_a_finite_gradient():
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    penalty = NormLoss(weight=1.0)(layer)
    penalty.backward()
    assert penalty == 2 and torch.equal(layer.weight.grad, torch.zeros(2, 3))


def test_stays_fp32_under_autocast_and_traces():
    net = network().float()
    penalty = NormLoss()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = penalty(net)
    assert value.dtype == torch.float32
    assert torch.equal(value, torch.compile(penalty, backend="eager", fullgraph=True)(net))


def test_wrong_values():
    with pytest.raises(ValueError, match="weight must be at least 0, got -1"):
        NormLoss(weight=-1)
    with pytest.raises(ValueError, match="no convolution"):
        NormLoss()(nn.ReLU())
