"""PlainNet: its equations written out (fp64), the residual network that it is without its shortcuts, its size by formula and its start."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnlab.backbones.plainnet import PlainBlock, plainnet
from attnlab.backbones.resnet import BasicBlock
from tests.component_rules import check_rules, close


def test_block_written_out() -> None:
    torch.manual_seed(0)
    block, x = PlainBlock(3, 5, 2, 0.2).double().eval(), torch.randn(2, 3, 7, 6, dtype=torch.float64)
    for bn in (block.bn1, block.bn2):
        nn.init.normal_(bn.weight), nn.init.normal_(bn.running_mean)
    y = x
    for conv, bn, stride in ((block.conv1, block.bn1, 2), (block.conv2, block.bn2, 1)):
        y = F.conv2d(y, conv.weight, stride=stride, padding=1)
        y = (y - bn.running_mean[:, None, None]) / (bn.running_var + bn.eps)[:, None, None].sqrt() * bn.weight[:, None, None]
        y = torch.where(y > 0, y, 0.2 * y)
    close(block(x), y.detach())


def test_a_residual_block_is_this_one_and_a_sum() -> None:
    torch.manual_seed(0)
    residual, plain, x = BasicBlock(4, 4, 1).double(), PlainBlock(4, 4, 1, 0.0).double(), torch.randn(3, 4, 5, 5, dtype=torch.float64)
    plain.load_state_dict(residual.state_dict())
    seen = []
    residual.bn2.register_forward_hook(lambda module, args, output: seen.append(output))
    y = residual(x)
    close(plain(x), F.relu(seen[0]).detach())
    close(y, F.relu(seen[0] + x).detach())


@pytest.mark.parametrize(("depth", "width"), [(8, 4), (20, 16), (56, 16)])
def test_size_by_formula(depth: int, width: int) -> None:
    n, w = (depth - 2) // 6, width
    convolutions = 27 * w + 9 * ((2 * n) * w * w + (w * 2 * w + (2 * n - 1) * 4 * w * w) + (2 * w * 4 * w + (2 * n - 1) * 16 * w * w))
    norms = 2 * (w + 2 * n * (w + 2 * w + 4 * w))
    with torch.device("meta"):
        found = sum(p.numel() for p in plainnet(10, (3, 32, 32), depth=depth, width=width).parameters())
    assert found == convolutions + norms + 4 * w * 10 + 10
    if (depth, width) == (56, 16):
        assert f"{found:,} parameters" in plainnet.__doc__


def test_the_start_keeps_the_variance_without_norms() -> None:
    torch.manual_seed(0)
    network = plainnet(5, (16, 24, 24), depth=20, width=16).eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.stride, module.padding_mode = (1, 1), "circular"  # no border of zeros, no loss of positions
    squares = []
    network.layer3[-1].bn2.register_forward_hook(lambda module, args, output: squares.append(args[0].square().mean().item()))
    network(torch.randn(8, 16, 24, 24))
    assert 0.4 < squares[0] / 2 * (1 + 0.2**2) < 2.5  # He's rule: E[z^2] = 2 / (1 + a^2) E[x^2] before the first activation


def test_rules() -> None:
    check_rules(lambda: plainnet(3, (3, 8, 8), depth=8, width=4), torch.randn(3, 3, 8, 8))


@pytest.mark.parametrize("options", [{"depth": 21}, {"depth": 2}, {"slope": 1.0}, {"slope": -0.1}, {"width": 0}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        plainnet(3, (3, 8, 8), **options)
