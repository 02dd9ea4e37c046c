"""Our reading of BNSR: batch norm at power 1, a loop, and that skewness falls for powers below 1. In fp64."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from attnlab.network import Network
from attnlab.regularizers.bnsr import SkewnessReducedBatchNorm2d, signed_power, skewness


def test_power_one_is_batch_norm() -> None:
    torch.manual_seed(0)
    reference = nn.BatchNorm2d(3).double()
    nn.init.normal_(reference.weight)
    module = SkewnessReducedBatchNorm2d((3, 4, 4), power=1.0, host=reference)
    reference = copy.deepcopy(reference)
    for _ in range(3):
        x = torch.randn(5, 3, 4, 4, dtype=torch.float64, requires_grad=True)
        y, expected = module(x), reference(x)
        torch.testing.assert_close(y, expected)
        gy = torch.randn_like(y)
        torch.testing.assert_close(torch.autograd.grad(y, x, gy), torch.autograd.grad(expected, x, gy))
    torch.testing.assert_close(module.state_dict(), reference.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(module.eval()(x), reference.eval()(x))


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10**6), power=st.floats(0.3, 2))
def test_equals_the_loop(seed: int, power: float) -> None:
    torch.manual_seed(seed)
    x = torch.randn(4, 2, 3, 3, dtype=torch.float64)
    module = SkewnessReducedBatchNorm2d((2, 3, 3), power=power, smooth=1e-12, eps=0.1, momentum=0.3).double()
    nn.init.normal_(module.weight)
    nn.init.normal_(module.bias)
    expected = torch.empty_like(x)
    for c in range(2):
        values = x[:, c].flatten().tolist()
        mean = sum(values) / len(values)
        var = sum((value - mean) ** 2 for value in values) / len(values)
        us = [(value - mean) / (var + 0.1) ** 0.5 for value in values]
        powers = torch.tensor([(1 if u > 0 else -1) * abs(u) ** power for u in us], dtype=torch.float64)
        expected[:, c] = (module.weight[c] * powers + module.bias[c]).view(4, 3, 3)
    torch.testing.assert_close(module(x), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(module.running_mean, 0.3 * x.mean((0, 2, 3)))


def test_skewness_falls_below_one_rises_above_and_is_logged() -> None:
    torch.manual_seed(0)
    x = torch.randn(512, 4, 4, 4, dtype=torch.float64).square()  # chi-square: skewness sqrt(8)
    seen = []
    for power in (0.5, 0.9, 0.99, 1.0, 1.01, 1.5):
        module = SkewnessReducedBatchNorm2d((4, 4, 4), power=power).double()
        module(x)
        assert module.statistics["skewness_before"].item() == pytest.approx(8**0.5, rel=0.1)
        seen.append(module.statistics["skewness_after"].item())
    assert seen == sorted(seen) and seen[0] < 0.5 * seen[3] and seen[3] == pytest.approx(8**0.5, rel=0.1)
    assert skewness(x).item() == pytest.approx(module.statistics["skewness_before"].item(), rel=1e-6)
    assert SkewnessReducedBatchNorm2d((4, 4, 4), measure=False).statistics == {}


def test_the_power_is_odd_and_its_slope_finite() -> None:
    u = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    z = signed_power(u, 0.5, smooth=1e-4)
    torch.testing.assert_close(z, -z.flip(0))
    (slope,) = torch.autograd.grad(z.sum(), u)
    assert slope.isfinite().all() and slope[3] == pytest.approx(1e-4**-0.25)


def test_replaces_norms_under_their_names_traces_and_keeps_half_precision() -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential()
    backbone.add_module("conv", nn.Conv2d(3, 4, 3))
    backbone.add_module("bn", nn.BatchNorm2d(4))
    names = list(backbone.state_dict())
    network = Network(backbone, {"bnsr": {"at": "bn", "how": "replace", "module": SkewnessReducedBatchNorm2d}}, shape=(3, 6, 6))
    assert list(backbone.state_dict()) == names
    x = torch.randn(4, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    other = copy.deepcopy(network)
    y = torch.compile(network, backend="eager", fullgraph=True)(x).logits
    assert torch.equal(y, other(x).logits) and y.is_contiguous(memory_format=torch.channels_last)
    assert set(network.statistics()) == {"bnsr@bn/skewness_before", "bnsr@bn/skewness_after"}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert other(x).logits.dtype == torch.bfloat16


def test_swa_takes_its_statistics() -> None:
    from torch.optim.swa_utils import update_bn

    module = SkewnessReducedBatchNorm2d((3, 4, 4))
    batches = [torch.randn(8, 3, 4, 4) for _ in range(3)]
    update_bn(batches, module)
    torch.testing.assert_close(module.running_mean, torch.cat(batches).mean((0, 2, 3)))


def test_wrong_values() -> None:
    for options, match in (
        ({"power": 0.0}, "power must be above 0, got 0"),
        ({"smooth": 0.0}, "smooth must be above 0"),
        ({"shape": (3,)}, r"bnsr needs a place of shape \(C, H, W\), .*got \(3,\)"),
        ({"host": nn.ReLU()}, "bnsr replaces a norm"),
    ):
        with pytest.raises(ValueError, match=match):
            SkewnessReducedBatchNorm2d(**{"shape": (3, 4, 4)} | options)
