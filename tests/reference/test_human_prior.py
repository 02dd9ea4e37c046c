"""Attention with a human prior against its equations (fp64), and its laws."""

import math

import pytest
import torch
import torch.nn.functional as F

from attnlab.attention.human_prior import HumanPriorAttention, centred_gaussian
from tests.component_rules import check_rules, close


def learned(module: HumanPriorAttention, x: torch.Tensor) -> torch.Tensor:
    pooled = torch.stack([x.mean(1), x.amax(1)], 1)
    return F.conv2d(pooled, module.attend.weight, padding=3).sigmoid().detach()


@pytest.mark.parametrize("rule", ["max", "either", "mix"])
def test_equals_its_equations(rule: str) -> None:
    torch.manual_seed(0)
    module, x = HumanPriorAttention((3, 4, 5), rule=rule, spread=0.7).double(), torch.randn(2, 3, 4, 5).double()
    if rule == "mix":
        assert module.balance.item() == 0  # half and half at first
        torch.nn.init.constant_(module.balance, 0.8)
    y, m = module(x).detach(), learned(module, x)
    for b in range(2):
        for i in range(4):
            for j in range(5):
                v = math.exp(-((((i + 0.5) / 2 - 1) ** 2) + ((j + 0.5) / 2.5 - 1) ** 2) / (2 * 0.49))
                a, alpha = m[b, 0, i, j].item(), 1 / (1 + math.exp(-0.8))
                g = {"max": max(a, v), "either": 1 - (1 - a) * (1 - v), "mix": alpha * a + (1 - alpha) * v}[rule]
                assert module.map[b, 0, i, j].item() == pytest.approx(g, abs=1e-6)  # the prior is made in fp32
                torch.testing.assert_close(y[b, :, i, j], x[b, :, i, j] * (1 + g), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rule", ["max", "either"])
def test_without_a_prior_it_is_plain_attention(rule: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 4, 5).double()
    dark = HumanPriorAttention((3, 4, 5), rule=rule, prior=[[0, 0], [0, 0]]).double()
    close(dark(x), x * (1 + learned(dark, x)))
    blind = HumanPriorAttention((3, 4, 5), rule=rule, absent=1.0).double()
    close(blind(x), x * (1 + learned(blind, x)))
    close(blind.eval()(x), (x * (1 + blind.join(learned(blind, x), blind.prior))).detach())  # evaluation has it
    assert not torch.allclose(blind(x), x * (1 + learned(blind, x)))


def test_the_gaussian_is_centred_and_a_grid_is_interpolated() -> None:
    g = centred_gaussian(6, 4, 0.5)
    torch.testing.assert_close(g, g.flip(0))
    torch.testing.assert_close(g, g.flip(1))
    assert g[2:4, 1:3].min() > g[0].max()
    grid = HumanPriorAttention((3, 4, 4), prior=[[0.0, 1.0]]).prior[0, 0]
    torch.testing.assert_close(grid, torch.tensor([0.0, 0.25, 0.75, 1.0]).expand(4, -1))


def test_rules() -> None:
    check_rules(lambda: HumanPriorAttention((8, 5, 4), rule="mix", absent=0.5), torch.randn(3, 8, 5, 4))


@pytest.mark.parametrize(
    "options", [{"rule": "sum"}, {"spread": 0.0}, {"absent": 1.5}, {"prior": [[0.0], [0.1, 0.2]]}, {"prior": "cat"}, {"prior": [[2.0]]}]
)
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        HumanPriorAttention((8, 5, 4), **options)
    with pytest.raises(ValueError, match="shape"):
        HumanPriorAttention((8,))
