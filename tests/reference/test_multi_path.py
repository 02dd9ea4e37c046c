"""The dynamic multi-path block against its equations (fp64), its gates, their gradient and its laws."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnlab.attention.multi_path import DynamicMultiPath
from tests.component_rules import check_rules, close


def block_of(**options) -> DynamicMultiPath:
    torch.manual_seed(0)
    return DynamicMultiPath((6, 4, 5), num_classes=3, **{"hidden": 4, **options})


def test_equals_a_loop_over_images() -> None:
    block, x = block_of().double().eval(), torch.randn(5, 6, 4, 5).double()
    nn.init.normal_(block.gate.weight)
    nn.init.zeros_(block.gate.bias)
    y = block(x)
    for b in range(5):
        h = (block.controller[0].weight @ x[b].mean((1, 2)) + block.controller[0].bias).relu()
        opened = (block.gate.weight @ h + block.gate.bias > 0).tolist()
        assert block.gates[b].tolist() == [float(one) for one in opened]
        total = x[b].clone()
        for one, path in zip(opened, block.paths, strict=True):
            if one:
                total += path(x[b : b + 1])[0].detach()
        close(y[b], total.relu())
    assert 0 < block.gates.mean() < 1 and block.penalty is None
    assert [len(path[0].weight) for path in block.paths] == [2] * 3  # C / N channels wide
    assert len(DynamicMultiPath((2, 4, 5), num_classes=3).paths[0][0].weight) == 1  # and at least 1


def test_open_it_is_a_static_block_and_closed_the_identity() -> None:
    block, x = block_of().double().eval(), torch.randn(2, 6, 4, 5).double()
    nn.init.zeros_(block.gate.weight)
    close(block(x), (x + sum(path(x) for path in block.paths)).relu().detach())
    nn.init.constant_(block.gate.bias, -1.0)
    close(block(x), x.relu())


def test_gates_are_drawn_by_their_probability_and_learn_by_the_soft_ones() -> None:
    block = block_of()
    logits = torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64, requires_grad=True)
    for progress, temperature in ((None, 1.0), (torch.tensor(1.0).double(), 0.5)):
        torch.manual_seed(1)
        gates = block.draw(logits.expand(20_000, -1), progress)
        assert ((gates == 0) | (gates == 1)).all()
        torch.testing.assert_close(gates.mean(0), logits.sigmoid(), rtol=0, atol=0.015)  # at any temperature
        torch.manual_seed(1)
        u = torch.rand(20_000, 3, dtype=torch.float64)
        soft = ((logits + (u / (1 - u)).log()) / temperature).sigmoid()
        (found,), (expected,) = torch.autograd.grad(gates.mean(), logits), torch.autograd.grad(soft.mean(), logits)
        close(found, expected, atol=1e-7)


def test_the_penalty_is_that_of_the_share_and_of_the_category() -> None:
    block, x, y = block_of(budget=2.0, category=0.5).double(), torch.randn(4, 6, 4, 5).double(), torch.tensor([0, 1, 2, 0])
    block(x, y)
    logits = block.classify(block.controller(x.mean((2, 3))))
    close(block.penalty, (2 * (block.gates.mean() - 0.6) ** 2 + 0.5 * F.cross_entropy(logits, y)).detach())
    gradient = torch.autograd.grad(block.penalty, [block.gate.weight, block.controller[0].weight])
    assert all(g.abs().sum() > 0 for g in gradient)
    assert block.statistics["open"] == block.gates.mean()


def test_the_share_is_learned() -> None:
    block, x = block_of(target_share=0.3), torch.randn(64, 6, 4, 5)
    step = torch.optim.Adam(block.parameters(), lr=0.05)
    for _ in range(60):
        block(x)
        step.zero_grad()
        block.penalty.backward()
        step.step()
    assert block.gates.mean().item() == pytest.approx(0.3, abs=0.12)


def test_rules() -> None:
    check_rules(block_of, torch.randn(3, 6, 4, 5), torch.tensor([0, 2, 1]), torch.tensor(0.5))


@pytest.mark.parametrize("options", [{"paths": 0}, {"hidden": 0}, {"target_share": 1.5}, {"budget": -1.0}, {"category": -1.0}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        block_of(**options)
    with pytest.raises(ValueError, match="keeps the shape"):
        block_of(host=nn.Conv2d(6, 6, 3, stride=2))
    with pytest.raises(ValueError, match="shape"):
        DynamicMultiPath((6,), num_classes=3)
