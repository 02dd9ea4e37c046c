"""OSKD against an obvious loop, and without neighbours."""

import pytest
import torch

from attnlab.distillation.oskd import OSKD, oskd
from attnlab.network import Output


@pytest.mark.parametrize("neighbours", [1, 2, 9])
def test_is_the_loop(neighbours: int) -> None:
    torch.manual_seed(0)
    logits = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 0, 0, 2, 1, 0])
    total = 0.0
    for i in range(7):
        others = [j for j in range(7) if j != i and target[j] == target[i]]
        others.sort(key=lambda j: (logits[i] - logits[j]).norm().item())
        if others:
            total = total + (logits[i] - logits[others[:neighbours]].detach().mean(0)).square().sum() / 7
    found = oskd(logits, target, neighbours=neighbours)
    torch.testing.assert_close(found, total)
    torch.testing.assert_close(torch.autograd.grad(found, logits), torch.autograd.grad(total, logits))
    term = OSKD(weight=0.5, neighbours=neighbours)
    for labels in (target, torch.eye(4)[target]):
        torch.testing.assert_close(term(Output(logits, None, None), labels), 0.5 * found)


def test_equal_outputs_cost_nothing() -> None:
    assert oskd(torch.ones(4, 3), torch.zeros(4, dtype=torch.int64), neighbours=2) == 0
    with pytest.raises(ValueError, match="neighbours at least 1"):
        OSKD(neighbours=0)
