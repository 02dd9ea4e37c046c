"""Export: smaller networks that compute the same."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attnlab.attention.se1c import SE1C
from attnlab.backbones.cnn3 import cnn3
from attnlab.backbones.preact_resnet import preresnet20
from attnlab.backbones.resnet import resnet18
from attnlab.network import Network
from attnlab.regularizers.maxdropout import MaxDropout

pytest.importorskip("torch_pruning")

from attnlab.evaluation.cost import Cost
from attnlab.pruning.export import export, zero_channels

SHAPE = (1, 16, 16)


def lively(backbone: nn.Module, *, shape: tuple[int, ...] = SHAPE) -> Network:
    """With statistics and norms that are not those of the start."""
    torch.manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return Network(backbone, shape=shape).eval()


def mask(norm: nn.Module, channels: list[int]) -> None:
    with torch.no_grad():
        norm.weight[channels] = norm.bias[channels] = 0


@pytest.mark.parametrize("make", [lambda: resnet18(5, SHAPE, width=8), lambda: cnn3(5, SHAPE, width=8), lambda: preresnet20(5, SHAPE)])
def test_masked_channels_go(make) -> None:
    network, x = lively(make()), torch.randn(3, *SHAPE)
    norms = [one for name, one in network.backbone.named_modules() if isinstance(one, nn.BatchNorm2d)]
    for norm in norms[1::2]:
        mask(norm, [0, 2, norm.num_features - 1])
    before, expected = Cost(repeats=1).of(network, x), network(x)
    smaller = export(network, x)
    after = Cost(repeats=1).of(smaller, x)
    assert after["parameters"] < before["parameters"] and after["multiply_adds"] < before["multiply_adds"]
    torch.testing.assert_close(smaller(x).logits, expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(network(x).logits, expected.logits)  # untouched


def test_a_trunk_needs_all_of_its_layers() -> None:
    """A residual trunk's channel goes where every layer that adds to it gives 0; one that still does keeps it."""
    network, x = lively(resnet18(5, SHAPE, width=8)), torch.randn(2, *SHAPE)
    layer = network.backbone.layer1
    for norm in (layer[0].bn2, layer[1].bn2):
        mask(norm, [3])
    assert export(network, x).backbone.layer1[0].bn2.num_features == 8
    stem = next(one for one in network.backbone.stem.modules() if isinstance(one, nn.BatchNorm2d))
    mask(stem, [3])
    smaller = export(network, x)
    assert smaller.backbone.layer1[0].bn2.num_features == smaller.backbone.layer2[0].conv1.in_channels == 7


def test_a_channel_stays_where_all_would_go() -> None:
    network = lively(resnet18(5, SHAPE, width=4))
    mask(network.backbone.layer1[0].bn1, list(range(4)))
    assert export(network, torch.randn(2, *SHAPE)).backbone.layer1[0].bn1.num_features == 1


def test_placed_components_may_have_no_weights() -> None:
    entry = {"at": "layer1", "how": "after"}
    with pytest.raises(ValueError, match="placed components that have weights, and there is attention"):
        export(Network(resnet18(5, SHAPE, width=4), {"attention": {**entry, "module": SE1C}}, shape=SHAPE), torch.randn(2, *SHAPE))
    network = Network(resnet18(5, SHAPE, width=4), {"maxdropout": {**entry, "module": MaxDropout}}, shape=SHAPE).eval()
    x = torch.randn(2, *SHAPE)
    torch.testing.assert_close(export(network, x).eval()(x).logits, network(x).logits)


def test_the_gap_is_relative_to_the_largest_logit_of_either_sign() -> None:
    network, x = lively(resnet18(5, SHAPE, width=4)), torch.randn(2, *SHAPE)
    network.backbone.layer1[0].relu1 = nn.Softplus(beta=20.0)  # 0 becomes .035
    mask(network.backbone.layer1[0].bn1, [1])
    with pytest.raises(ValueError, match="does an activation map 0 to something else"):
        export(network, x, tolerance=1e-5)
    nn.init.constant_(network.backbone.fc.bias, -1e5)
    export(network, x, tolerance=1e-5)  # the same difference, of logits of 1e5 below 0


def test_an_activation_that_does_not_map_0_to_0_is_found() -> None:
    network = lively(resnet18(5, SHAPE, width=4))
    network.backbone.layer1[0].relu1 = nn.Sigmoid()
    mask(network.backbone.layer1[0].bn1, [1])
    with pytest.raises(ValueError, match="does an activation map 0 to something else"):
        export(network, torch.randn(2, *SHAPE))


def test_a_pruned_run_is_exported(run) -> None:
    words = ["evaluator=[cost]", "evaluator.cost.export=channels", "evaluator.cost.repeats=2"]
    found = run("callback=slimming", "callback.slimming.rate=0.5", *words)
    metrics = found["metrics"]
    assert metrics["cost/exported/parameters"] < metrics["cost/parameters"] == found["parameters"]
    assert metrics["cost/exported/multiply_adds"] < metrics["cost/multiply_adds"] and metrics["cost/exported/gap"] < 1e-4
    assert metrics["cost/exported/latency_ms"] > 0 and metrics["cost/zeros"] == 0


def test_of_a_layer_of_another_kind_no_channel_is_known_to_be_zero() -> None:
    layer = nn.Module()
    layer.one, layer.two = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(6))
    assert zero_channels(SimpleNamespace(module=layer)) == [False] * 6
