"""Cutout against the authors' loop with the same centres."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.regularizers.cutout import Cutout


def slow(x, length):
    """The authors' util/cutout.py image by image; draws the same centres."""
    B, _, h, w = x.shape
    ys, xs = torch.randint(h, (B,)).tolist(), torch.randint(w, (B,)).tolist()
    out = x.clone()
    for b, (cy, cx) in enumerate(zip(ys, xs, strict=True)):
        y1, y2 = np.clip(cy - length // 2, 0, h), np.clip(cy + length // 2, 0, h)
        x1, x2 = np.clip(cx - length // 2, 0, w), np.clip(cx + length // 2, 0, w)
        out[b, :, y1:y2, x1:x2] = 0
    return out


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), height=st.integers(2, 12), width=st.integers(2, 12), length=st.integers(2, 20))
def test_equals_the_authors_loop(seed, height, width, length):
    torch.manual_seed(seed)
    x = torch.randn(5, 2, height, width, dtype=torch.float64)
    torch.manual_seed(seed)
    y = Cutout(x.shape[1:], length=length)(x)
    torch.manual_seed(seed)
    assert torch.equal(y, slow(x, length))


def test_every_image_loses_between_a_quarter_and_a_whole_square():
    y = Cutout((3, 32, 32))(torch.ones(500, 3, 32, 32))
    erased = (y == 0).sum((1, 2, 3)) // 3
    assert erased.min() >= 64 and erased.max() == 256
    assert len(erased.unique()) > 5  # images draw their own squares


def test_centre_is_uniform():
    torch.manual_seed(0)
    y = Cutout((1, 8, 8), length=2)(torch.ones(20000, 1, 8, 8))
    rate = (y == 0).double().mean((0, 1))
    # a pixel is covered by 4 of the 64 centres; the last row and column by fewer (the hole is [c - 1, c + 1))
    torch.testing.assert_close(rate[:7, :7], torch.full((7, 7), 4 / 64, dtype=torch.float64), atol=0.01, rtol=0)
    assert rate[7, 7].item() == pytest.approx(1 / 64, abs=0.005)


def test_identity_in_eval():
    x = torch.randn(2, 3, 8, 8)
    assert Cutout((3, 8, 8)).eval()(x) is x


def test_keeps_channels_last_and_traces():
    module = Cutout((3, 8, 8), length=4)
    x = torch.randn(6, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    y = torch.compile(module, backend="eager", fullgraph=True)(x)
    torch.manual_seed(0)
    assert torch.equal(y, module(x))
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("bad, match", [({"length": 1}, "length"), ({"shape": (8,)}, r"\(C, H, W\)")])
def test_wrong_values(bad, match):
    with pytest.raises(ValueError, match=match):
        Cutout(**{"shape": (3, 8, 8)} | bad)
