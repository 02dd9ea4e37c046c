"""DropBlock against a slow loop that redraws its seeds, and against torchvision's where that one is sound."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.regularizers.dropblock import DropBlock


def slow(x, drop, block, per_channel, progress=None):
    """Algorithm 1 with loops; draws the same seeds. With `progress` the rate is that part of its final value."""
    B, C, H, W = x.shape
    bh, bw = min(block, H), min(block, W)
    gamma = drop * H * W / (bh * bw * (H - bh + 1) * (W - bw + 1))
    size = (B, C if per_channel else 1, H - bh + 1, W - bw + 1)
    seeds = torch.empty(size, dtype=x.dtype).bernoulli_(gamma) if progress is None else torch.rand(size) < gamma * progress
    mask = torch.ones_like(x)
    for b in range(B):
        for c in range(C):
            for i in range(H - bh + 1):
                for j in range(W - bw + 1):
                    if seeds[b, c if per_channel else 0, i, j]:
                        mask[b, c, i : i + bh, j : j + bw] = 0
    total = mask.sum()
    return x * mask * (mask.numel() / total if total > 0 else 0)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    block=st.integers(1, 8),
    drop=st.floats(0.01, 0.9),
    per_channel=st.booleans(),
)
def test_equals_the_loop(seed, height, width, block, drop, per_channel):
    torch.manual_seed(seed)
    x = torch.randn(3, 2, height, width, dtype=torch.float64)
    torch.manual_seed(seed)
    y = DropBlock(x.shape[1:], drop=drop, block=block, per_channel=per_channel)(x)
    torch.manual_seed(seed)
    torch.testing.assert_close(y, slow(x, drop, block, per_channel))


@pytest.mark.parametrize("schedule", ["linear", "constant"])
@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_drop_grows_with_progress(schedule, progress):
    x = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    torch.manual_seed(0)
    y = DropBlock((3, 8, 8), drop=0.3, block=3, schedule=schedule)(x, torch.tensor(progress))
    torch.manual_seed(0)
    torch.testing.assert_close(y, slow(x, 0.3, 3, True, progress if schedule == "linear" else None))
    assert torch.equal(y, x) == (progress == 0 and schedule == "linear")


def test_a_batch_that_is_dropped_whole_is_zero():
    torch.manual_seed(0)
    x = torch.ones(2, 1, 2, 2, requires_grad=True)
    y = DropBlock((1, 2, 2), drop=0.99, block=2)(x)
    y.sum().backward()
    assert not y.any() and not x.grad.any()


def test_equals_torchvisions_for_odd_blocks():
    from torchvision.ops import drop_block2d

    x = torch.randn(4, 3, 9, 9, dtype=torch.float64)
    torch.manual_seed(0)
    y = DropBlock((3, 9, 9), drop=0.2, block=3)(x)
    torch.manual_seed(0)
    torch.testing.assert_close(y, drop_block2d(x, 0.2, 3), rtol=1e-6, atol=1e-6)  # it divides by sum + 1e-6


@pytest.mark.parametrize("size, block", [(2, 7), (4, 7), (8, 7), (16, 7), (16, 4)])
def test_dropped_fraction(size, block):
    torch.manual_seed(3)
    y = DropBlock((8, size, size), drop=0.1, block=block)(torch.ones(256, 8, size, size, dtype=torch.float64))
    dropped = (y == 0).double().mean().item()
    assert 0.07 < dropped < 0.11  # blocks overlap, so a little under drop
    assert y.mean().item() == pytest.approx(1)  # rescaled to keep the sum of a constant map exactly


def test_fp16_does_not_overflow():
    y = DropBlock((64, 32, 32))(torch.ones(2, 64, 32, 32, dtype=torch.float16))
    assert 1 < y.max() < 1.2
    for seed in (12, 27, 28):  # where counting in bf16 would show: what is kept is counted to more than bf16's three digits
        torch.manual_seed(seed)
        y = DropBlock((8, 16, 16), drop=0.2)(torch.ones(2, 8, 16, 16, dtype=torch.bfloat16))
        assert y.max() == (1 / (y != 0).float().mean()).bfloat16()


def test_identity_in_eval():
    x = torch.randn(2, 3, 8, 8)
    assert DropBlock((3, 8, 8)).eval()(x) is x


@pytest.mark.parametrize("per_channel", [True, False])
def test_keeps_channels_last_and_traces(per_channel):
    module = DropBlock((3, 8, 8), drop=0.3, block=3, per_channel=per_channel)
    x = torch.randn(6, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    torch.manual_seed(0)
    y = torch.compile(module, backend="eager", fullgraph=True)(x)
    torch.manual_seed(0)
    assert torch.equal(y, module(x))
    assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "bad, match", [({"drop": 1.0}, "drop"), ({"block": 0}, "block"), ({"shape": (8,)}, r"\(C, H, W\).*for vectors use dropout")]
)
def test_wrong_values(bad, match):
    with pytest.raises(ValueError, match=match):
        DropBlock(**{"shape": (3, 8, 8)} | bad)
