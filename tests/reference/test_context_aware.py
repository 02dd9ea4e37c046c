"""The context-aware residual module against its equations written out (fp64), its switches and its laws."""

import pytest
import torch
import torch.nn.functional as F

from attnlab.attention.context_aware import ContextAwareResidual
from tests.component_rules import check_rules, close


@pytest.mark.parametrize("channels", [True, False])
@pytest.mark.parametrize("spatial", [True, False])
def test_equals_its_equations(channels: bool, spatial: bool) -> None:
    if not channels and not spatial:
        return
    torch.manual_seed(0)
    module, x = ContextAwareResidual((8, 6, 5), channels=channels, spatial=spatial).double(), torch.randn(3, 8, 6, 5).double()
    y = x
    if channels:
        first, _, last = module.channels.mlp
        assert all(field[0].bias is None for field in module.channels.fields)
        score = 0
        for field, d in zip(module.channels.fields, (1, 2, 3), strict=True):
            u = F.conv2d(x, field[0].weight, padding=d, dilation=d, groups=8)
            mean, var = u.mean((0, 2, 3), keepdim=True), u.var((0, 2, 3), keepdim=True, correction=0)
            v = ((u - mean) / (var + 1e-5).sqrt()).mean((2, 3)) + field[1].bias
            score = score + F.relu(v @ first.weight[:, :, 0, 0].T + first.bias) @ last.weight[:, :, 0, 0].T + last.bias
        y = x * score.sigmoid()[:, :, None, None]
    if spatial:
        parts = [y[:, 2 * i : 2 * i + 2] for i in range(4)]
        scales = [parts[0]]
        for part, scale in zip(parts[1:], module.spatial.scales, strict=True):
            scales.append(F.conv2d(part + scales[-1], scale.weight, padding=1, groups=2))
        mixed = F.conv2d(torch.cat(scales, 1), module.spatial.mix.weight)
        pooled = torch.stack([mixed.mean(1), mixed.amax(1)], 1)
        a = F.conv2d(pooled, module.spatial.attend.weight, padding=3).sigmoid()
        y = y * a
    out = module(x)
    close(out, (x + y).detach())
    if spatial:
        close(module.map, a.detach())
    else:
        assert module.map is None


def test_keeps_the_sign_and_at_most_doubles() -> None:
    x = torch.randn(4, 8, 5, 5)
    y = ContextAwareResidual((8, 5, 5))(x)
    assert (y * x >= 0).all() and (y.abs() >= x.abs()).all() and (y.abs() <= 2 * x.abs()).all()


def test_rules() -> None:
    check_rules(lambda: ContextAwareResidual((8, 5, 4)), torch.randn(3, 8, 5, 4))


@pytest.mark.parametrize("options", [{"groups": 3}, {"dilations": []}, {"reduction": 0}, {"channels": False, "spatial": False}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ContextAwareResidual((8, 5, 4), **options)
    with pytest.raises(ValueError, match="shape"):
        ContextAwareResidual((8,))
