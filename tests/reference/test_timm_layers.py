"""timm's attention layers through the adapter: the arithmetic of the known ones written out, and the adapter's own promises."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F

from attnlab.attention.timm_layers import NAMES, TimmAttention, find_layer


def features(*shape, dtype=torch.float64):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


def test_se_written_out():
    module, x = TimmAttention((32, 5, 6), name="se", rd_ratio=0.25).double(), features(3, 32, 5, 6)
    layer = module.layer
    assert layer.fc1.out_channels == 8
    hidden = (x.mean((2, 3)) @ layer.fc1.weight[:, :, 0, 0].T + layer.fc1.bias).relu()
    gate = (hidden @ layer.fc2.weight[:, :, 0, 0].T + layer.fc2.bias).sigmoid()
    assert torch.allclose(module(x), x * gate[:, :, None, None])
    assert module.map is None


def test_eca_written_out():
    module, x = TimmAttention((16, 5, 6), name="eca").double(), features(3, 16, 5, 6)
    kernel = module.layer.conv.weight[0, 0]
    padded = F.pad(x.mean((2, 3)), (1, 1))
    gate = torch.stack([padded[:, c : c + 3] @ kernel for c in range(16)], 1).sigmoid()
    assert len(kernel) == 3 and torch.allclose(module(x), x * gate[:, :, None, None])


def test_cbam_written_out_and_its_map():
    module, x = TimmAttention((32, 9, 8), name="cbam").double().eval(), features(3, 32, 9, 8)
    channel, spatial = module.layer.channel, module.layer.spatial

    def mlp(v):
        return (v @ channel.fc1.weight[:, :, 0, 0].T).relu() @ channel.fc2.weight[:, :, 0, 0].T

    z = x * (mlp(x.mean((2, 3))) + mlp(x.amax((2, 3)))).sigmoid()[:, :, None, None]
    pooled = torch.stack([z.mean(1), z.amax(1)], 1)
    bn = spatial.conv.bn
    A = (F.conv2d(pooled, spatial.conv.conv.weight, padding=3) / (1 + bn.eps) ** 0.5).sigmoid()
    assert torch.allclose(module(x), z * A)
    assert torch.allclose(module.map, A) and module.map.shape == (3, 1, 9, 8)
    assert module.keep.value is None  # nothing is held twice


def test_coord_has_one_gate_per_row_and_per_column():
    module, x = TimmAttention((16, 6, 7), name="coord").double().eval(), features(2, 16, 6, 7)
    gate = module(x) / x
    row, column = gate[:, :, :, :1], gate[:, :, :1, :]
    assert torch.allclose(gate, row * column / gate[:, :, :1, :1])  # an outer product
    assert ((gate > 0) & (gate < 1)).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_name_of_timm_keeps_the_shape(name):
    side = 7 if name == "bat" else 8
    try:
        module = TimmAttention((32, side, side), name=name)
    except ValueError as error:
        assert name == "ge" and "does not work on (32, 8, 8)" in str(error)  # broken in timm 1.0.31
        return
    assert module.layer.training
    x = features(2, 32, side, side, dtype=torch.float32)
    y = module(x)
    assert y.shape == x.shape and y.isfinite().all()
    assert (module.map is not None) == (name in ("cbam", "lcbam"))


@pytest.mark.parametrize("name", ["se", "cbam", "eca", "coord"])
def test_one_graph_and_copies_after_a_training_step(name):
    module, x = TimmAttention((16, 7, 7), name=name), features(2, 16, 7, 7, dtype=torch.float32)
    module(x).sum().backward()
    other = copy.deepcopy(module)
    assert other.map is None
    third = pickle.loads(pickle.dumps(module)).eval()
    module.eval(), other.eval()
    expected = module(x)
    assert torch.equal(other(x), expected) and torch.equal(third(x), expected)
    if name == "cbam":
        mine = module.map
        other(x + 1)
        assert module.map is mine and not torch.equal(other.map, mine)  # a copy has a hook of its own
    compiled = torch.compile(other, backend="eager", fullgraph=True)
    assert torch.allclose(compiled(x), expected)
    if name == "cbam":
        assert torch.allclose(other.map, module.map)


def test_errors():
    with pytest.raises(ValueError, match=r"timm has no attention layer 'cbamm'; nearest: .*cbam"):
        TimmAttention((16, 4, 4), name="cbamm")
    with pytest.raises(ValueError, match="timm has no attention layer ''"):
        find_layer("")
    with pytest.raises(ValueError, match=r"place of shape \(C, H, W\), .*got \(16,\)"):
        TimmAttention((16,), name="se")
    for name in ("eca", "strip"):
        with pytest.raises(ValueError, match="has no hidden channels, so no rd_ratio"):
            TimmAttention((16, 4, 4), name=name, rd_ratio=0.5)
    for name in ("bat", "halo"):
        with pytest.raises(ValueError, match=rf"timm's {name} attention does not work on \(32, 5, 6\)"):
            TimmAttention((32, 5, 6), name=name)
    with pytest.raises(ValueError, match=r"rd_ratio must be in \(0, 1\], got 1.5"):
        TimmAttention((16, 4, 4), name="se", rd_ratio=1.5)
