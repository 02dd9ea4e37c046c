"""The small CNNs: their equations written out (fp64), sizes by formula, dropout in training alone."""

import pytest
import torch
import torch.nn.functional as F

from attnlab.backbones import small_cnn
from attnlab.backbones.small_cnn import cnn_hc, cnn_lc, cnn_mc
from tests.component_rules import check_rules, close


def test_written_out() -> None:
    torch.manual_seed(0)
    network, x = cnn_lc(4, (2, 16, 24), width=3).double().eval(), torch.randn(2, 2, 16, 24, dtype=torch.float64)
    y = x
    for layer in (network.layer1, network.layer2, network.layer3):
        for number in (1, 2):
            conv, bn = getattr(layer, f"conv{number}"), getattr(layer, f"bn{number}")
            y = F.relu(F.conv2d(y, conv.weight, padding=1) * bn.weight[:, None, None] / (1 + bn.eps) ** 0.5)
        y = y.unfold(2, 2, 2).unfold(3, 2, 2).amax((4, 5))
    close(network(x), (y.mean((2, 3)) @ network.fc.weight.T + network.fc.bias).detach())


@pytest.mark.parametrize(("build", "width"), [(cnn_lc, 8), (cnn_mc, 24), (cnn_hc, 64)])
def test_three_complexities_of_one_depth(build, width: int) -> None:
    with torch.device("meta"):
        network = build(10, (3, 32, 32))
    pairs = [(3, width), (width, width), (width, 2 * width), (2 * width, 2 * width), (2 * width, 4 * width), (4 * width, 4 * width)]
    expected = sum(9 * before * after + 2 * after for before, after in pairs) + 40 * width + 10
    assert sum(p.numel() for p in network.parameters()) == expected and f"{expected:,} parameters" in build.__doc__


def test_drops_in_training_alone() -> None:
    torch.manual_seed(0)
    network, x = small_cnn.cnn_lc(4, (1, 16, 16), dropout=0.5), torch.randn(64, 1, 16, 16)
    seen = []
    network.features.register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    network(x), network.eval()(x)
    assert 0.4 < (seen[0] == 0).float().mean() - (seen[1] == 0).float().mean() < 0.6


def test_rules() -> None:
    check_rules(lambda: cnn_lc(3, (3, 8, 8), width=4, dropout=0.0), torch.randn(3, 3, 8, 8))


@pytest.mark.parametrize("options", [{"dropout": 1.0}, {"width": 0}, {"stem": "wide"}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        cnn_mc(3, (3, 16, 16), **options)
