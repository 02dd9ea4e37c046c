"""MaxDropout against the released code's numbers and a slow loop, in fp64."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from attnlab.regularizers.maxdropout import MaxDropout
from tests.golden_numbers import golden


def slow(x, drop):
    low, high = x.min().item(), x.max().item()
    y = x.clone()
    for index in np.ndindex(*x.shape):
        if high > low and (x[index].item() - low) / (high - low) > 1 - drop:
            y[index] = 0
    return y


@pytest.mark.parametrize("drop, key", [(0.3, "y_p30"), (0.5, "y_p50")])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_equals_the_released_code(drop, key, memory_format):
    gold = golden("core", "md_")
    x = gold["x"].contiguous(memory_format=memory_format)
    module = MaxDropout(drop=drop)
    y = module(x)
    assert torch.equal(y, gold[key])
    assert y.is_contiguous(memory_format=memory_format)
    assert module.dropped.item() == pytest.approx((gold[key] == 0).double().mean().item())
    assert module.statistics == {"dropped": module.dropped}


def test_hand_made():
    x = torch.arange(10.0).view(1, 10)
    assert MaxDropout((10,), drop=0.3)(x).tolist() == [[0, 1, 2, 3, 4, 5, 6, 0, 0, 0]]


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10**6), drop=st.floats(0, 1), relu=st.booleans())
def test_equals_the_loop_and_bounds_hold(seed, drop, relu):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, 3, 4, 2, generator=generator, dtype=torch.float64)
    x = x.relu() if relu else x
    normalised = (x - x.min()) / (x.max() - x.min())
    assume(drop in (0, 1) or (normalised - (1 - drop)).abs().min() > 1e-12)  # not within rounding of the threshold
    module = MaxDropout(drop=drop)
    y = module(x)
    assert torch.equal(y, slow(x, drop))
    assert ((y == x) | (y == 0)).all()
    assert module.dropped == (normalised > 1 - drop).double().mean().float()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_ends(dtype):
    x = torch.tensor([[-1e6, 0.5, 1.0, 3.0]], dtype=dtype)
    assert torch.equal(MaxDropout(drop=0.0)(x), x)  # t = 1 is not > 1
    assert torch.equal(MaxDropout(drop=1.0)(x), torch.tensor([[-1e6, 0, 0, 0]], dtype=dtype))


def test_constant_tensor_is_kept():
    for value in (0.0, 2.5):
        x = torch.full((2, 3, 4, 4), value)
        module = MaxDropout(drop=1.0)
        assert torch.equal(module(x), x) and module.dropped == 0


def test_half_precision_threshold_is_not_rounded():
    x = torch.tensor([[0.0, 0.69921875, 0.703125, 1.0]], dtype=torch.bfloat16)
    # 0.702 lies between two neighbours of bf16's grid, nearer to the upper one, which it would be rounded to
    assert MaxDropout(drop=0.298)(x).tolist() == [[0, 0.69921875, 0, 0]]


def test_gradient_is_one_where_kept_and_zero_where_dropped():
    x = torch.randn(4, 3, 5, 5, dtype=torch.float64, requires_grad=True)
    y = MaxDropout(drop=0.4)(x)
    y.sum().backward()
    assert torch.equal(x.grad, (y != 0).double())


def test_modes():
    x = torch.randn(4, 3, 5, 5)
    off, code = MaxDropout(drop=0.5).eval(), MaxDropout(drop=0.5, eval_mode="paper_code").eval()
    assert off(x) is x and off.dropped is None and off.statistics == {}
    assert torch.equal(code(x), code.train()(x)) and not torch.equal(code(x), x)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_per_sample_ignores_the_batch(memory_format):
    x = (torch.randn(5, 3, 4, 4, dtype=torch.float64) * torch.arange(1, 6).view(-1, 1, 1, 1)).contiguous(memory_format=memory_format)
    module = MaxDropout(drop=0.3, per_sample=True)
    for whole, alone in zip(module(x), x.split(1), strict=True):
        assert torch.equal(whole, slow(alone, 0.3)[0])
    together = MaxDropout(drop=0.3)
    assert not torch.equal(together(x)[:1], together(x[:1]))


@pytest.mark.parametrize("per_sample", [False, True])
def test_traces_as_one_graph(per_sample):
    module = MaxDropout(drop=0.3, per_sample=per_sample)
    x = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), module(x))
    assert compiled.dropped == module.dropped > 0


@pytest.mark.parametrize("bad", [{"drop": 1.5}, {"drop": -0.1}, {"eval_mode": "on"}])
def test_wrong_values(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        MaxDropout(**bad)
