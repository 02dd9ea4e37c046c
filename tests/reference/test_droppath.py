"""Stochastic depth against timm's and torchvision's, which draw the same numbers."""

import pytest
import torch

from attnlab.regularizers.droppath import DropPath


@pytest.mark.parametrize("drop", [0.0, 0.2, 0.5, 1.0])
def test_equals_torchvisions(drop):
    from torchvision.ops import stochastic_depth

    x = torch.randn(32, 3, 4, 4, dtype=torch.float64)
    torch.manual_seed(0)
    y = DropPath((3, 4, 4), drop=drop)(x)
    torch.manual_seed(0)
    assert torch.equal(y == 0, stochastic_depth(x, drop, mode="row") == 0)
    torch.manual_seed(0)
    torch.testing.assert_close(y, stochastic_depth(x, drop, mode="row"))


def test_equals_timms():
    from timm.layers import drop_path

    x = torch.randn(32, 3, 4, 4, dtype=torch.float64)
    torch.manual_seed(0)
    y = DropPath((3, 4, 4), drop=0.3)(x)
    torch.manual_seed(0)
    torch.testing.assert_close(y, drop_path(x, 0.3, training=True))


def test_a_sample_is_dropped_whole_or_scaled_whole_and_expectation_holds():
    torch.manual_seed(2)
    x = torch.randn(5000, 2, 2, dtype=torch.float64) + 3
    y = DropPath((2, 2), drop=0.25)(x)
    kept = (y != 0).flatten(1)
    assert (kept.all(1) | ~kept.any(1)).all()
    torch.testing.assert_close(y[kept[:, 0]], x[kept[:, 0]] / 0.75)
    assert abs(kept[:, 0].double().mean().item() - 0.75) < 5 * (0.25 * 0.75 / 5000) ** 0.5


def test_identity_in_eval():
    x = torch.randn(2, 3, 4, 4)
    assert DropPath((3, 4, 4)).eval()(x) is x


def test_keeps_channels_last_and_traces():
    module = DropPath((3, 4, 4), drop=0.5)
    x = torch.randn(6, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    y = torch.compile(module, backend="eager", fullgraph=True)(x)
    torch.manual_seed(0)
    assert torch.equal(y, module(x))
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_wrong_drop():
    with pytest.raises(ValueError, match=r"drop must be in \[0, 1\], got -1"):
        DropPath((4,), drop=-1)
