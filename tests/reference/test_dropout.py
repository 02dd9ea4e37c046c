"""Dropout: torch's own, with a place's constructor."""

import pytest
import torch

from attnlab.regularizers.dropout import Dropout


def test_is_torchs_dropout():
    x = torch.randn(8, 16, dtype=torch.float64)
    torch.manual_seed(0)
    y = Dropout((16,), drop=0.3)(x)
    torch.manual_seed(0)
    assert torch.equal(y, torch.nn.Dropout(0.3)(x))


@pytest.mark.parametrize("drop", [0.0, 0.1, 0.5, 0.9])
def test_expectation_and_dropped_fraction(drop):
    torch.manual_seed(1)
    y = Dropout((500,), drop=drop)(torch.ones(400, 500, dtype=torch.float64))
    error = 5 * (drop * (1 - drop) / y.numel()) ** 0.5  # five standard errors
    assert abs((y == 0).double().mean().item() - drop) <= error
    assert abs(y.mean().item() - 1) <= error / (1 - drop) + 1e-12


def test_all_dropped_is_zero():
    assert Dropout((4,), drop=1.0)(torch.ones(2, 4)).abs().sum() == 0


def test_identity_in_eval():
    x = torch.randn(2, 3, 4, 4)
    assert Dropout((3, 4, 4)).eval()(x) is x


def test_keeps_channels_last_and_traces():
    module = Dropout((3, 4, 4))
    x = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    y = torch.compile(module, backend="eager", fullgraph=True)(x)
    torch.manual_seed(0)
    assert torch.equal(y, module(x))
    assert y.is_contiguous(memory_format=torch.channels_last)


def test_wrong_drop():
    with pytest.raises(ValueError, match=r"drop must be in \[0, 1\], got 1.5"):
        Dropout((4,), drop=1.5)
