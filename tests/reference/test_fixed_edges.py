"""The stem of fixed edge filters, and its relevance by colour, filter and pixel."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attnlab.backbones.cnn3 import cnn3
from attnlab.backbones.fixed_edges import FILTERS, FixedEdges
from attnlab.backbones.resnet import resnet18
from attnlab.explainers.fixed_edges import FixedEdgeRelevance
from attnlab.explainers.input_x_gradient import InputXGradient
from attnlab.network import Network


def network(stem: str, size: int) -> Network:
    torch.manual_seed(0)
    return Network(resnet18(3, (3, size, size), width=4, stem=stem), shape=(3, size, size), num_classes=3).double().eval()


def test_maps_are_a_slow_loop() -> None:
    x = torch.randn(2, 3, 5, 6)
    found = FixedEdges(3)(x)
    assert found.shape == (2, 33, 5, 6)
    padded = F.pad(x, (1, 1, 1, 1))
    for c in range(3):
        for f, kernel in enumerate(FILTERS.values()):
            weight = torch.tensor(kernel, dtype=torch.float32)
            for i, j in ((0, 0), (2, 3), (4, 5)):
                expected = (weight * padded[1, c, i : i + 3, j : j + 3]).sum() / weight.abs().sum()
                assert abs(float(found[1, c * len(FILTERS) + f, i, j] - expected)) < 1e-5


def test_edge_filters_see_no_plain_colour_and_identity_gives_the_channel() -> None:
    x = torch.randn(1, 2, 1, 1).expand(1, 2, 7, 7)
    found = FixedEdges(2)(x).unflatten(1, (2, len(FILTERS)))[..., 1:-1, 1:-1]
    torch.testing.assert_close(found[:, :, 0], x[..., 1:-1, 1:-1])
    assert found[:, :, 1:].abs().max() < 1e-6


@pytest.mark.parametrize(("stem", "size", "side"), [("edges", 8, 8), ("imagenet_edges", 32, 16)])
def test_filters_are_fixed_and_the_three_sums_are_equal(stem: str, size: int, side: int) -> None:
    net = network(stem, size)
    assert [name for name, _ in net.backbone.stem.named_parameters()] == ["conv.weight", "bn.weight", "bn.bias"]
    assert net.backbone.stem.conv.kernel_size == (1, 1) and hasattr(net.backbone.stem, "pool") == (stem == "imagenet_edges")
    x, target, explainer = torch.randn(2, 3, size, size, dtype=torch.float64), torch.tensor([0, 2]), FixedEdgeRelevance()
    color_BC, filter_BF, pixel_B1hw = explainer.relevances(net, x, target)
    assert color_BC.shape == (2, 3) and filter_BF.shape == (2, len(FILTERS)) and pixel_B1hw.shape == (2, 1, side, side)
    torch.testing.assert_close(color_BC.sum(1), filter_BF.sum(1))
    torch.testing.assert_close(color_BC.sum(1), pixel_B1hw.sum((1, 2, 3)))
    assert explainer.explain(net, x, target).shape == (2, 1, size, size)
    # with a small epsilon LRP is value x gradient, and a linear layer without bias passes its sum on
    expected = InputXGradient().attribute(net, x, target)
    torch.testing.assert_close(color_BC.sum(1), expected.sum((1, 2, 3)), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(color_BC, expected.sum((2, 3)), rtol=1e-4, atol=1e-6)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match=r"train with model\.stem=edges"):
        FixedEdgeRelevance().explain(network("cifar", 8), torch.zeros(1, 3, 8, 8).double(), torch.tensor([0]))
    with pytest.raises(ValueError, match="stem must be cifar or imagenet, got 'edges'"):
        cnn3(3, (3, 28, 28), stem="edges")
    with pytest.raises(ValueError, match=r"use model\.stem=edges"):
        network("imagenet_edges", 8)
    assert not any(isinstance(module, FixedEdges) for module in network("cifar", 8).modules() if isinstance(module, nn.Module))
