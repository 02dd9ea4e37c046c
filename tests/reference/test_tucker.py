"""Tucker-2: full rank is the convolution, low rank is found, and the proximal step of the nuclear norm."""

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attnlab.backbones.resnet import resnet18
from attnlab.callbacks.rank_shrinkage import RankShrinkage
from attnlab.network import Network
from attnlab.pruning.tucker import decomposed, ranks, shrunk, tucker2, unfold


def test_full_ranks_are_the_convolution() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 7, 3, stride=2, padding=1).double()
    x = torch.randn(2, 5, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(tucker2(conv, 7, 5)(x), conv(x), rtol=1e-10, atol=1e-12)


def test_low_ranks_are_found_and_enough() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 8, 3, bias=False).double()
    core = torch.randn(3, 2, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        conv.weight.copy_(torch.einsum("rskl,or,is->oikl", core, torch.randn(8, 3).double(), torch.randn(6, 2).double()))
    assert ranks(conv.weight, energy=1 - 1e-9) == (3, 2)
    x = torch.randn(2, 6, 7, 7, dtype=torch.float64)
    torch.testing.assert_close(tucker2(conv, 3, 2)(x), conv(x), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("mode", [0, 1])
def test_the_proximal_step(mode: int) -> None:
    """The minimum of |V - W|^2 / 2 + t |V_(mode)|_* over V: no nearby V is better, and singular values fall by t."""
    torch.manual_seed(0)
    weight = torch.randn(4, 3, 2, 2, dtype=torch.float64)
    found = shrunk(weight, mode, 0.7)
    expected = (torch.linalg.svdvals(unfold(weight, mode)) - 0.7).clamp_min(0)
    torch.testing.assert_close(torch.linalg.svdvals(unfold(found, mode)), expected)

    def cost(v: torch.Tensor) -> float:
        return ((v - weight).square().sum() / 2 + 0.7 * torch.linalg.matrix_norm(unfold(v, mode), "nuc")).item()

    assert all(cost(found) <= cost(found + 0.01 * torch.randn_like(found)) for _ in range(20))


def test_a_decomposed_network() -> None:
    torch.manual_seed(0)
    network = Network(resnet18(4, (1, 16, 16), width=8), shape=(1, 16, 16)).eval()
    conv = network.backbone.layer2[0].conv2
    with torch.no_grad():
        conv.weight.copy_(torch.einsum("rskl,or,is->oikl", torch.randn(2, 2, 3, 3), torch.randn(16, 2), torch.randn(16, 2)) / 20)
    smaller = decomposed(network, energy=1 - 1e-9)
    assert isinstance(smaller.backbone.layer2[0].conv2, nn.Sequential) and isinstance(smaller.backbone.layer1[0].conv1, nn.Conv2d)
    x = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(smaller(x).logits, network(x).logits, rtol=1e-4, atol=1e-4)
    for make in (lambda: decomposed(network, energy=0.0), lambda: RankShrinkage(weight=-1.0)):
        with pytest.raises(ValueError, match="must be"):
            make()


def test_an_epoch_s_step_is_by_the_rates_of_its_own_steps() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3).double()

    torch.manual_seed(0)
    callback, backbone = RankShrinkage(weight=2.0), Pair()
    learner = SimpleNamespace(network=SimpleNamespace(backbone=backbone), optimizer=SimpleNamespace(param_groups=[{"lr": 0.01}]))
    callback.on_fit_start(learner)
    expected = backbone.conv.weight.detach().clone()
    for steps in (3, 1):
        for step in range(steps):
            callback.on_step(learner, step)
        row: dict[str, float] = {}
        callback.on_epoch_end(learner, row)
        for mode in (0, 1):
            expected = shrunk(expected, mode, 2.0 * 0.01 * steps)
        torch.testing.assert_close(backbone.conv.weight.detach(), expected)
        out, into = ranks(expected, energy=0.99)
        assert row["ranks/kept"] == pytest.approx((out / 4 + into / 3) / 2)


def test_grouped_convolutions_stay() -> None:
    backbone = nn.Sequential(OrderedDict(conv=nn.Conv2d(8, 8, 3, groups=2), last=nn.Conv2d(8, 8, 3)))
    for conv in backbone:
        nn.init.ones_(conv.weight)  # of rank one
    found = decomposed(Network(backbone, shape=(8, 7, 7))).backbone
    assert isinstance(found.conv, nn.Conv2d) and isinstance(found.last, nn.Sequential)


def test_a_run_loses_rank(run) -> None:
    words = ["callback=rank_shrinkage", "callback.rank_shrinkage.weight=3", "evaluator=[cost]", "evaluator.cost.export=tucker"]
    metrics = run(*words, "evaluator.cost.repeats=2")["metrics"]
    assert metrics["cost/exported/parameters"] < metrics["cost/parameters"] and "cost/exported/acc" in metrics
