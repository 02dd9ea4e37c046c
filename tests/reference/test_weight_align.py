"""WeightAlign against a loop over filters and its laws; group norm and no norm in the place of batch norm. In fp64."""

import copy
from functools import partial

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from attnlab.network import Network
from attnlab.regularizers.group_norm import GroupNorm
from attnlab.regularizers.no_norm import NoNorm
from attnlab.regularizers.weight_align import WeightAlign, aligned


@example(seed=777, groups=4, kernel=1, scale=1.5611305355084362)
@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), groups=st.sampled_from([1, 2, 4]), kernel=st.integers(1, 3), scale=st.floats(0.1, 10))
def test_equals_the_loop_and_ignores_scale_and_shift(seed: int, groups: int, kernel: int, scale: float) -> None:
    torch.manual_seed(seed)
    host = nn.Conv2d(8, 4, kernel, groups=groups, stride=2, padding=1).double()
    module = WeightAlign((8, 6, 6), host=host, eps=1e-5)
    nn.init.normal_(module.gain)
    n = 8 // groups * kernel**2
    expected = torch.empty_like(host.weight)
    for o, filter in enumerate(host.weight.detach()):
        values = filter.flatten().tolist()
        mean = sum(values) / n
        var = sum((value - mean) ** 2 for value in values) / n
        expected[o] = module.gain[o].item() * (filter - mean) / (n / 2 * var + 1e-5) ** 0.5
    torch.testing.assert_close(aligned(host.weight, module.gain, eps=1e-5), expected)
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    y = module(x)
    torch.testing.assert_close(y, nn.functional.conv2d(x, expected, host.bias, stride=2, padding=1, groups=groups))
    assert torch.autograd.gradcheck(lambda weight: aligned(weight, module.gain, eps=1e-5), (host.weight,))
    moved = aligned(scale * host.weight + 3, module.gain, eps=0.0)
    torch.testing.assert_close(moved, aligned(host.weight, module.gain, eps=0.0))
    whole = (scale * host.weight + 3).detach()  # a filter's rounding errors grow by its offset over its spread
    lost = 1e-15 * (whole.abs().amax((1, 2, 3)) / whole.std((1, 2, 3)) * module.gain.abs()).max().item()
    torch.testing.assert_close(moved.mean((1, 2, 3)), torch.zeros(4, dtype=torch.float64), atol=lost, rtol=0)
    torch.testing.assert_close(moved.var((1, 2, 3), correction=0), 2 / n * module.gain**2)


def test_power_falls_by_one_minus_one_over_pi_a_layer() -> None:
    """A filter of mean 0 does not see the mean of what comes out of a ReLU: 1 - 1 / pi of the power is left, whatever the weights were."""
    torch.manual_seed(0)
    y, powers = torch.randn(16, 512, 4, 4), []
    for _ in range(8):
        host = nn.Conv2d(512, 512, 1, bias=False)
        nn.init.uniform_(host.weight, -7, 9)
        y = WeightAlign((512, 4, 4), host=host)(y.relu())
        powers.append(y.square().mean().item())
    assert (powers[-1] / powers[0]) ** (1 / 7) == pytest.approx(1 - 1 / torch.pi, abs=0.02)


def test_one_entry_a_filter_is_only_scaled() -> None:
    weight = torch.randn(3, 1, 1, 1)
    assert torch.equal(aligned(weight, torch.full((3,), 2.0), eps=1e-5), 2 * weight)


def net() -> nn.Sequential:
    backbone = nn.Sequential()
    backbone.add_module("conv", nn.Conv2d(3, 6, 3, bias=False))
    backbone.add_module("bn", nn.BatchNorm2d(6))
    nn.init.normal_(backbone.bn.weight)
    nn.init.normal_(backbone.bn.bias)
    return backbone.double()


def test_replaces_convolutions_under_their_names() -> None:
    torch.manual_seed(0)
    backbone = net()
    state, plain = copy.deepcopy(backbone.state_dict()), copy.deepcopy(backbone)
    draw = torch.get_rng_state()
    Network(backbone, {"wa": {"at": "conv", "how": "replace", "module": WeightAlign}}, shape=(3, 6, 6))
    assert torch.equal(torch.get_rng_state(), draw)  # no weights are drawn for nothing
    assert backbone.state_dict().keys() == state.keys() | {"conv.gain"}
    assert all(torch.equal(backbone.state_dict()[name], value) for name, value in state.items())
    # under batch norm the scale of a filter is nothing: what is left of it is the filter's mean
    plain.conv.weight.data -= plain.conv.weight.mean((1, 2, 3), keepdim=True)
    x = torch.randn(8, 3, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(backbone(x), plain(x), rtol=1e-3, atol=1e-3)  # eps


@pytest.mark.parametrize(("groups", "expected"), [(1, 1), (2, 2), (4, 3), (32, 6)])
def test_group_norm_keeps_the_affine_part(groups: int, expected: int) -> None:
    backbone = net()
    plain = copy.deepcopy(backbone)
    module = partial(GroupNorm, groups=groups, eps=0.1)
    Network(backbone, {"gn": {"at": "bn", "how": "replace", "module": module}}, shape=(3, 6, 6))
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    parts = plain.conv(x).view(4, expected, -1)
    normal = ((parts - parts.mean(2, keepdim=True)) / (parts.var(2, correction=0, keepdim=True) + 0.1).sqrt()).view(4, 6, 4, 4)
    torch.testing.assert_close(backbone(x), normal * plain.bn.weight.view(6, 1, 1) + plain.bn.bias.view(6, 1, 1))


def test_no_norm_keeps_the_bias() -> None:
    backbone = net()
    plain = copy.deepcopy(backbone)
    Network(backbone, {"none": {"at": "bn", "how": "replace", "module": NoNorm}}, shape=(3, 6, 6))
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(backbone(x), plain.conv(x) + plain.bn.bias.view(6, 1, 1))


def test_traces_under_autocast() -> None:
    host = nn.Conv2d(3, 6, 3)
    module, x = WeightAlign((3, 6, 6), host=host), torch.randn(2, 3, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = torch.compile(module, backend="eager", fullgraph=True)(x)
        assert torch.equal(y, module(x)) and y.dtype == torch.bfloat16
    assert module.to(memory_format=torch.channels_last)(x).shape == (2, 6, 4, 4)


def test_wrong_values() -> None:
    for make, options, match in (
        (WeightAlign, {}, "here it would replace nothing"),
        (WeightAlign, {"host": nn.BatchNorm2d(3)}, "here it would replace a BatchNorm2d"),
        (WeightAlign, {"host": nn.Conv2d(3, 3, 1), "eps": 0.0}, "eps must be above 0"),
        (GroupNorm, {"groups": 0}, "groups must be at least 1, got 0"),
        (GroupNorm, {"host": nn.ReLU()}, "group_norm replaces a norm, here it would replace a ReLU"),
        (NoNorm, {"host": nn.ReLU()}, "no_norm replaces a norm, here it would replace a ReLU"),
    ):
        with pytest.raises(ValueError, match=match):
            make((3, 4, 4), **options)
