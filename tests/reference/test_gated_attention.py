"""Gated attention pooling against a loop over positions (fp64), and its laws."""

import math

import pytest
import torch

from attnlab.heads.gated_attention import GatedAttentionPool
from tests.component_rules import check_rules, close


@pytest.mark.parametrize("gated", [True, False])
@torch.no_grad()
def test_equals_a_loop(gated: bool) -> None:
    torch.manual_seed(0)
    module, x = GatedAttentionPool((3, 2, 4), hidden=5, gated=gated).double(), torch.randn(2, 3, 2, 4).double()
    z = module(x)
    assert module.score.bias is None  # the softmax takes away what all positions have in common
    for b in range(2):
        scores = []
        for i in range(2):
            for j in range(4):
                h, total = x[b, :, i, j], 0.0
                for unit in range(5):
                    value = math.tanh(float(module.content.weight[unit, :, 0, 0] @ h + module.content.bias[unit]))
                    if gated:
                        value /= 1 + math.exp(-float(module.gate.weight[unit, :, 0, 0] @ h + module.gate.bias[unit]))
                    total += float(module.score.weight[0, unit, 0, 0]) * value
                scores.append(total)
        weights = torch.tensor([math.exp(s) / sum(map(math.exp, scores)) for s in scores], dtype=torch.float64).view(2, 4)
        close(module.map[b, 0], weights)
        close(z[b], (x[b] * weights).sum((1, 2)))


def test_without_scores_it_is_the_mean() -> None:
    torch.manual_seed(0)
    module, x = GatedAttentionPool((3, 4, 4)).double(), torch.randn(2, 3, 4, 4).double()
    torch.nn.init.zeros_(module.score.weight)
    close(module(x), x.mean((2, 3)))


def test_the_order_of_positions_does_not_matter() -> None:
    torch.manual_seed(0)
    module, x = GatedAttentionPool((3, 4, 4)).double(), torch.randn(2, 3, 4, 4).double()
    order = torch.randperm(16)
    z, weights = module(x), module.map
    close(module(x.flatten(2)[:, :, order].view_as(x)), z.detach())
    close(module.map.flatten(2), weights.detach().flatten(2)[:, :, order])
    close(weights.sum((1, 2, 3)), torch.ones(2).double())


def test_rules() -> None:
    check_rules(lambda: GatedAttentionPool((3, 5, 4), hidden=8), torch.randn(3, 3, 5, 4))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="hidden"):
        GatedAttentionPool((3, 4, 4), hidden=0)
    with pytest.raises(ValueError, match="shape"):
        GatedAttentionPool((3,))
