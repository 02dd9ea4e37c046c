"""Pre-activation ResNets: their equations written out (fp64), sizes by formula, and the wide network of factor 1 (an independent class)."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnlab.backbones import preact_resnet
from attnlab.backbones.preact_resnet import PreActivationBottleneck, preresnet20
from attnlab.backbones.wide_resnet import WideResNet
from tests.component_rules import check_rules, close


def bn_relu(bn: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, correction=0)
    return F.relu((x - mean) / (var + 1e-5).sqrt() * bn.weight[:, None, None] + bn.bias[:, None, None])


@pytest.mark.parametrize(("stride", "in_channels"), [(1, 12), (2, 12), (1, 4)])
def test_bottleneck_written_out(stride: int, in_channels: int) -> None:
    torch.manual_seed(0)
    block, x = PreActivationBottleneck(in_channels, 3, stride).double(), torch.randn(4, in_channels, 6, 6, dtype=torch.float64)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight), nn.init.normal_(module.bias)
    o = bn_relu(block.bn1, x)
    y = F.conv2d(o, block.conv1.weight)
    y = F.conv2d(bn_relu(block.bn2, y), block.conv2.weight, stride=stride, padding=1)
    y = F.conv2d(bn_relu(block.bn3, y), block.conv3.weight)
    same = stride == 1 and in_channels == 12
    assert (block.downsample is None) == same
    close(block(x), (y + (x if same else F.conv2d(o, block.downsample.conv.weight, stride=stride))).detach())


def test_basic_form_is_the_wide_network_of_factor_one() -> None:
    torch.manual_seed(0)
    ours, wide = preresnet20(5, (3, 16, 16)), WideResNet("wide", 5, (3, 16, 16), depth=22, stem="cifar", width=16, bottleneck=None)
    wide.load_state_dict(ours.state_dict())
    x = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(ours(x), wide(x))


@pytest.mark.parametrize("depth", [20, 32, 110])
def test_sizes_by_formula(depth: int) -> None:
    n = (depth - 2) // 6
    convs = 9 * 3 * 16 + sum(9 * (before * c + (2 * n - 1) * c * c) + (before * c if before != c else 0) for before, c in STAGES)
    norms = sum(2 * (before + (2 * n - 1) * c) for before, c in STAGES) + 2 * 64
    assert count(depth) == convs + norms + 650


STAGES = ((16, 16), (16, 32), (32, 64))


def count(depth: int) -> int:
    build = getattr(preact_resnet, f"preresnet{depth}")
    with torch.device("meta"):
        total = sum(p.numel() for p in build(10, (3, 32, 32)).parameters())
    assert f"{total:,} parameters" in build.__doc__
    return total


def test_depth_164_has_the_published_size() -> None:
    assert count(164) == pytest.approx(1.70e6, rel=0.01)
    convs = sum(isinstance(m, nn.Conv2d) for name, m in preact_resnet.preresnet164(10, (3, 8, 8)).named_modules() if "down" not in name)
    assert convs + 1 == 164


def test_rules() -> None:
    check_rules(lambda: preresnet20(3, (3, 8, 8), width=4), torch.randn(3, 3, 8, 8))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="depth must be 9 n"):
        options = dict(stem="cifar", width=4, bottleneck=None)
        preact_resnet.PreActResNet("x", 3, (3, 8, 8), depth=111, block=PreActivationBottleneck, **options)
