"""Guided backprop and guided non-linearities against captum's numbers and the authors' hooks, on modules, functions and in-place ReLUs."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.explainers.gnl_ig import GuidedNonLinearity
from attnlab.explainers.gradient import Gradient
from attnlab.explainers.guided_backprop import GuidedBackprop, GuidedRules, guided_gradient
from tests.golden_numbers import golden
from tests.reference.explained import Functional, Small, small

RULES = ("authors", "clean", "none")
WAYS = {"inplace": Small, "copies": lambda: Small(inplace=False), "functions": Functional}


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return golden("explainers")


@pytest.mark.parametrize("way", WAYS)
def test_guided_backprop_is_captum_s(stored: dict[str, Tensor], way: str) -> None:
    found = GuidedBackprop().attribute(small(WAYS[way]()), stored["x"], stored["target"])
    torch.testing.assert_close(found, stored["gbp"], rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("rule", RULES)
def test_gnl_is_the_authors(stored: dict[str, Tensor], rule: str, way: str) -> None:
    network, x, target = small(WAYS[way]()), stored["x"], stored["target"]
    if rule != "none":
        once = guided_gradient(network, x, target, pool_rule=rule)
        torch.testing.assert_close(once, stored[f"gnl_{rule}_grad"].double(), rtol=0, atol=1e-7)
    found = GuidedNonLinearity(pool_rule=rule).attribute(network, x, target)
    torch.testing.assert_close(found, stored[f"gnl_{rule}"], rtol=0, atol=1e-8)
    if rule == "authors":
        heat = GuidedNonLinearity(pool_rule=rule).explain(network, x, target)[:, 0].abs()
        torch.testing.assert_close(heat / heat.amax((1, 2), keepdim=True), stored["heat_gnl"], rtol=0, atol=1e-7)


def test_a_pool_that_also_gives_indices_follows_the_rule() -> None:
    found = []
    for pool in (lambda x: F.max_pool2d(x, 2), lambda x: F.max_pool2d(x, 2, return_indices=True)[0]):
        x = torch.arange(16.0).view(1, 1, 4, 4).requires_grad_()
        with GuidedRules("clean"):
            (pool(x) * torch.tensor([[1.0, -1.0], [-1.0, 1.0]])).sum().backward()
        found.append(x.grad)
    assert torch.equal(found[0], found[1]) and found[0].min() == 0 and found[0].sum() == 2


def test_one_step_is_the_middle_of_the_way_from_the_baseline(stored: dict[str, Tensor]) -> None:
    network, x, target = small(), stored["x"], stored["target"]
    middle = guided_gradient(network, (x + 0.3) / 2, target, pool_rule="clean")
    found = GuidedNonLinearity(steps=1).explain(network, x, target, baseline=0.3)
    torch.testing.assert_close(found, ((x - 0.3) * middle).sum(1, keepdim=True))


def test_images_that_are_not_square() -> None:
    """The authors' mask on a wide map, by a slow loop: one pool between two convolutions."""

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3, padding=1)
            self.last = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            self.pooled = F.max_pool2d(self.conv(x).relu(), 3, 2, 1)
            return self.last(self.pooled).mean((2, 3)) + 0.1 * self.pooled.mean((2, 3))

    torch.manual_seed(0)
    network, x, target = Wide().double(), torch.randn(1, 1, 4, 8, dtype=torch.float64), torch.tensor([1])
    relu = network.conv(x).relu().detach().requires_grad_()
    pooled = F.max_pool2d(relu, 3, 2, 1)
    pooled.retain_grad()
    (network.last(pooled).mean((2, 3)) + 0.1 * pooled.mean((2, 3)))[0, 1].backward()
    mask = torch.zeros_like(relu)
    for k in range(2):
        for i in range(4):
            for j in range(8):
                mask[0, k, i, j] = float(pooled.grad[0, k, i // 2, j // 2] > 0)
    x.requires_grad_()
    (expected,) = torch.autograd.grad(network.conv(x), x, (relu.grad * mask).clamp(min=0) * (relu > 0))
    found = guided_gradient(network, x.detach(), target, pool_rule="authors")
    assert found.abs().sum() > 0
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


def test_relu6_modules_and_functions_are_met() -> None:
    x = torch.tensor([-1.5, 0.5, 7.0], requires_grad=True)
    for relu in (nn.ReLU6(), F.relu6, lambda x: F.hardtanh(x, min_val=0, max_val=6)):
        with GuidedRules("clean"):
            y = relu(x)
        assert torch.autograd.grad(y, x, torch.ones(3))[0].tolist() == [0, 1, 0]
        with GuidedRules("clean"):
            y = relu(x)
        assert torch.autograd.grad(y, x, -torch.ones(3))[0].tolist() == [0, 0, 0]
    with GuidedRules("clean"):
        y = F.hardtanh(x, -1, 1)
    assert torch.autograd.grad(y, x, -torch.ones(3))[0].tolist() == [0, -1, 0]


def test_a_pool_s_rule_is_for_its_share_of_the_gradient_only() -> None:
    """A value that is pooled and used beside it: only what comes through the pool is changed."""
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], requires_grad=True)
    for rule in ("authors", "clean"):
        with GuidedRules(rule):
            y = F.max_pool2d(x, 2).sum() * -1 + (x * -5).sum()
        assert torch.autograd.grad(y, x)[0].flatten().tolist() == [-5, -5, -5, -5]


def test_gradients_are_plain_again_afterwards(stored: dict[str, Tensor]) -> None:
    network, x, target = small(), stored["x"], stored["target"]
    for rule in RULES:
        GuidedNonLinearity(steps=2, pool_rule=rule).explain(network, x, target)
        torch.testing.assert_close(Gradient().attribute(network, x, target), stored["grad"], rtol=1e-12, atol=1e-15)
    with pytest.raises((RuntimeError, IndexError)):
        GuidedBackprop().explain(network, x, torch.tensor([0, 1, 2, 99]))
    torch.testing.assert_close(Gradient().attribute(network, x, target), stored["grad"], rtol=1e-12, atol=1e-15)


def test_what_is_refused(stored: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match="pool_rule must be one of clean, authors, none, got 'all'"):
        GuidedNonLinearity(pool_rule="all")
    with pytest.raises(ValueError, match="steps must be at least 1"):
        GuidedNonLinearity(steps=0)
    smooth = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    with pytest.raises(ValueError, match="need a network with ReLUs, this one computes none"):
        GuidedBackprop().explain(smooth, stored["x"], stored["target"].clamp(max=3))
