"""Cross-connections against a loop over images and paths (fp64), single paths, and the laws of routing."""

import copy

import pytest
import torch
from torch import nn

from attnlab.attention.cross_connections import CrossConnectedStage
from attnlab.backbones.resnet import resnet18
from tests.component_rules import check_rules, close


def stage() -> nn.Sequential:
    torch.manual_seed(0)
    return copy.deepcopy(resnet18(3, (3, 8, 8), width=4).layer2)


def test_equals_a_loop() -> None:
    module = CrossConnectedStage((4, 6, 6), host=stage().double(), paths=3).double().eval()
    x = torch.randn(2, 4, 6, 6).double()
    y = module(x)
    for b in range(2):
        maps = [path[0](x[b : b + 1])[0] for path in module.paths]
        gates = []
        for router, one in zip(module.connections[0].routers, maps, strict=True):
            hidden = (router[0].weight @ one.mean((1, 2)) + router[0].bias).relu()
            powers = (router[2].weight @ hidden + router[2].bias).exp()
            gates.append(powers / powers.sum())
        close(module.gates[0][b], torch.stack(gates).detach())
        routed = [sum(gates[i][j] * maps[i] for i in range(3)) for j in range(3)]
        last = [path[1](value[None])[0] for path, value in zip(module.paths, routed, strict=True)]
        close(y[b], (sum(last) / 3).detach())
    close(module.gates[0].sum(2), torch.ones(2, 3).double())


def test_one_path_is_the_stage_and_others_have_weights_of_their_own() -> None:
    host, x = stage().eval(), torch.randn(2, 4, 6, 6)
    expected = host(x).detach()
    torch.testing.assert_close(CrossConnectedStage((4, 6, 6), host=host, paths=1).eval()(x), expected)
    first, second = CrossConnectedStage((4, 6, 6), host=host, paths=2).paths
    assert first is host and not torch.equal(first[1].conv1.weight, second[1].conv1.weight)


def test_gradients_reach_the_routers() -> None:
    module = CrossConnectedStage((4, 6, 6), host=stage())
    module(torch.randn(3, 4, 6, 6)).square().mean().backward()
    assert all(router[2].weight.grad.abs().sum() > 0 for router in module.connections[0].routers)


def test_rules() -> None:
    check_rules(lambda: CrossConnectedStage((4, 6, 6), host=stage()), torch.randn(3, 4, 6, 6))


def test_refusals() -> None:
    for options in ({"paths": 0}, {"reduction": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            CrossConnectedStage((4, 6, 6), host=stage(), **options)
    for host in (nn.Conv2d(4, 4, 3), nn.Sequential(nn.Conv2d(4, 4, 3))):
        with pytest.raises(ValueError, match="two or more blocks"):
            CrossConnectedStage((4, 6, 6), host=host)
