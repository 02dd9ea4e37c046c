"""The decoupled step of norm loss against Ranger21's numbers, a loop over filters, and the penalty under plain SGD; in fp64."""

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attnlab.callbacks.norm_loss_step import NormLossStep, shrink_to_unit
from attnlab.regularizers.norm_loss import NormLoss
from tests.golden_numbers import golden


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, groups=6), nn.Flatten(), nn.Linear(6, 4)).double()


def learner_of(network: nn.Module, *groups: dict) -> SimpleNamespace:
    return SimpleNamespace(network=network, optimizer=torch.optim.SGD([dict(group) for group in groups]))


@pytest.mark.parametrize("key", ["w4", "w2"])
def test_the_step_and_the_penalty_equal_the_golden_numbers(key: str) -> None:
    gold = golden("components", "nl_")
    lr, weight = gold["lr_lambda"].tolist()
    layer = nn.Conv2d(3, 5, 3, bias=False) if key == "w4" else nn.Linear(7, 4, bias=False)
    layer.weight = nn.Parameter(gold[key].clone())
    penalty = NormLoss(weight=1.0)(layer)
    assert penalty.item() == pytest.approx(gold[f"{key}_R"].item(), rel=1e-12)
    (gradient,) = torch.autograd.grad(penalty, layer.weight)
    torch.testing.assert_close(gradient, gold[f"{key}_gR"], rtol=1e-9, atol=1e-12)
    learner, step = learner_of(layer, {"params": [layer.weight], "lr": lr}), NormLossStep(weight=weight)
    step.on_fit_start(learner)
    step.on_step(learner, 1)
    torch.testing.assert_close(layer.weight.detach(), gold[f"{key}_step"], rtol=1e-9, atol=1e-12)


def test_every_group_has_its_own_rate_and_only_filters_move() -> None:
    network = net()
    before = copy.deepcopy(network)
    first, rest = [network[0].weight], [p for p in network.parameters() if p is not network[0].weight]
    learner = learner_of(network, {"params": rest, "lr": 0.1}, {"params": first, "lr": 0.4})
    step = NormLossStep(weight=0.5)
    step.on_fit_start(learner)
    learner.optimizer.param_groups[1]["lr"] = 0.2  # as a schedule does
    step.on_step(learner, 1)
    for index, lr in ((0, 0.2), (2, 0.1), (4, 0.1)):
        for new, old in zip(network[index].weight, before[index].weight):
            norm = sum(value**2 for value in old.flatten().tolist()) ** 0.5
            torch.testing.assert_close(new, old * (1 - 2 * lr * 0.5 * (1 - 1 / (norm + 1e-8))))
        assert torch.equal(network[index].bias, before[index].bias)
    assert torch.equal(network[1].weight, before[1].weight)


def test_agrees_with_the_penalty_under_plain_sgd() -> None:
    one, two = net(), net()
    learner = learner_of(one, {"params": list(one.parameters()), "lr": 0.1})
    step = NormLossStep(weight=0.3)
    step.on_fit_start(learner)
    step.on_step(learner, 1)
    NormLoss(weight=0.3)(two).backward()
    torch.optim.SGD(two.parameters(), lr=0.1).step()
    for mine, theirs in zip(one.parameters(), two.parameters()):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)  # eps


def test_brings_norms_to_one_and_leaves_zero_filters() -> None:
    weight = torch.randn(4, 5, dtype=torch.float64)
    weight[3] = 0
    for _ in range(200):
        shrink_to_unit([weight], 0.2, eps=1e-8)
    torch.testing.assert_close(weight.norm(dim=1), torch.tensor([1.0, 1, 1, 0], dtype=torch.float64), atol=1e-7, rtol=0)


def test_a_run_with_it_trains_otherwise_and_is_tested(run) -> None:
    words = ["trainer.precision=32", "trainer.max_epochs=1"]
    plain, found = run(*words), run(*words, "callback=norm_loss_step", "callback.norm_loss_step.weight=1.0")
    assert found["status"] == "finished" and found["metrics"]["test/nll"] != plain["metrics"]["test/nll"]


def test_wrong_values() -> None:
    with pytest.raises(ValueError, match="weight must be at least 0, got -1"):
        NormLossStep(weight=-1)
    with pytest.raises(ValueError, match="eps must be above 0"):
        NormLossStep(eps=0.0)
    with pytest.raises(ValueError, match="no convolution"):
        NormLossStep().on_fit_start(SimpleNamespace(network=nn.ReLU(), optimizer=None))
