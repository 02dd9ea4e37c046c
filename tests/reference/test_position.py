"""Position-wise attention against its layers written out, in fp64."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from attnlab.attention.position import PositionAttention
from attnlab.attention.rect import RectAttention


def features(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("training", [True, False])
def test_equals_the_layers_written_out(training):
    torch.manual_seed(0)
    module = PositionAttention((16, 5, 6), reduction=2).double().train(training)
    conv, bn, _, last = module.score
    bn.running_mean.normal_(), bn.running_var.uniform_(0.5, 2)
    mean, var = bn.running_mean.clone(), bn.running_var.clone()
    x = features(3, 16, 5, 6)
    y = module(x)
    h = F.conv2d(x, conv.weight, padding=1)
    assert h.shape[1] == 8
    if training:
        mean, var = h.mean((0, 2, 3)), h.var((0, 2, 3), unbiased=False)
    for b in range(3):
        for i in range(5):
            for j in range(6):
                score = last.bias.item()
                for c in range(8):
                    normal = (h[b, c, i, j] - mean[c]) / (var[c] + bn.eps).sqrt() * bn.weight[c] + bn.bias[c]
                    score += last.weight[0, c, 0, 0].item() * max(normal.item(), 0)
                a = 1 / (1 + math.exp(-score))
                assert module.map[b, 0, i, j].item() == pytest.approx(a, abs=1e-9)
                assert torch.allclose(y[b, :, i, j], x[b, :, i, j] * a)


def test_same_head_as_the_rectangle():
    position, rect = PositionAttention((32, 8, 8)), RectAttention((32, 8, 8))
    assert [p.shape for p in position.parameters()] == [p.shape for p in rect.parameters()]


def test_four_hidden_channels_at_least():
    sizes = [PositionAttention((channels, 4, 4)).score[0].out_channels for channels in (4, 16, 20, 64)]
    assert sizes == [4, 4, 5, 16]


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("shape", [(128, 20, 20), (256, 10, 10)])
@pytest.mark.parametrize("predictor", ["moments", "grid"])
def test_control_of_equal_size(shape, predictor):
    rect = count(RectAttention(shape, predictor=predictor))
    control = count(PositionAttention(shape) if predictor == "moments" else PositionAttention(shape, budget=rect))
    assert abs(control - rect) <= 0.02 * rect
    assert count(PositionAttention(shape, budget=rect)) == control


@pytest.mark.parametrize("channels, budget", [(8, 76), (8, 113), (8, 114), (8, 1000), (32, 10_901)])
def test_no_other_width_comes_nearer_to_the_budget(channels, budget):
    module = PositionAttention((channels, 5, 5), budget=budget)
    one = 9 * channels + 3
    assert count(module) == module.score[0].out_channels * one + 1
    assert abs(count(module) - budget) <= one / 2


@pytest.mark.parametrize("B, H, W", [(2, 1, 1), (1, 2, 2), (1, 1, 3)])
def test_small_maps_autocast_graph_and_copies(B, H, W):
    module = PositionAttention((4, H, W))
    x = features(B, 4, H, W, dtype=torch.float32)
    module(x).sum().backward()
    assert module.map.shape == (B, 1, H, W) and all(p.grad is not None for p in module.parameters())
    other = copy.deepcopy(module).eval()
    module.eval()
    assert other.map is None and torch.equal(other(x), module(x))
    compiled = torch.compile(other, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), module(x)) and torch.allclose(other.map, module.map)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = module(x.bfloat16())
    assert y.dtype == torch.bfloat16 and module.map.dtype == torch.float32


def test_errors():
    with pytest.raises(ValueError, match=r"place of shape \(C, H, W\), .*got \(10,\)"):
        PositionAttention((10,))
    with pytest.raises(ValueError, match="reduction must be at least 1, got 0"):
        PositionAttention((8, 4, 4), reduction=0)
    with pytest.raises(ValueError, match="budget must be at least 580 parameters at 64 channels, got 100"):
        PositionAttention((64, 4, 4), budget=100)


def test_the_table_gives_the_control_the_budget_of_the_grid():
    from attnlab.config.compose import compose
    from attnlab.pipeline.factory import make_data, make_learner
    from attnlab.tables.spec import read_spec

    spec, sizes = read_spec("rect_cluttered"), {}
    for row in spec.rows:
        plan = compose([*spec.overrides(row, spec.columns[0]), "logger=none", "data.num_train=128", "data.num_test=10"])
        network = make_learner(plan, make_data(plan)).network
        sizes[row.label] = count(network.placed), plan.full["attention"].get("position", {}).get("module", {}).get("budget")
    assert sizes["no attention"][0] == 0
    assert sizes["position-wise"][0] == sizes["rectangle, moments"][0] == 2329
    grid, (control, budget) = sizes["rectangle, grid"][0], sizes["position-wise, as large as grid"]
    assert (grid, budget, control) == (10_901, 10_901, 10_768) and abs(control - grid) <= 0.02 * grid
