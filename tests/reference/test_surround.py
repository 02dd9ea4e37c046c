"""Our reading of the inhibitory surround against a loop over positions, in fp64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.attention.surround import InhibitorySurround


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 10**6),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    sides=st.sampled_from([(1, 3), (3, 5), (3, 7)]),
    learn=st.booleans(),
)
def test_equals_the_loop(seed: int, size: tuple[int, int], sides: tuple[int, int], learn: bool) -> None:
    torch.manual_seed(seed)
    H, W = size
    x = torch.randn(2, 3, H, W, dtype=torch.float64)
    near, far = sides[0] // 2, sides[1] // 2
    expected = x.clone()
    for i in range(H):
        for j in range(W):
            for k in range(max(0, i - far), min(H, i + far + 1)):
                for m in range(max(0, j - far), min(W, j + far + 1)):
                    if abs(k - i) > near or abs(m - j) > near:
                        expected[:, :, i, j] -= 0.2 * x[:, :, k, m] / (sides[1] ** 2 - sides[0] ** 2)
    module = InhibitorySurround((3, H, W), strength=0.2, learn=learn, inner=sides[0], outer=sides[1]).double()
    torch.testing.assert_close(module(x), expected, rtol=1e-6 if learn else 1e-9, atol=1e-6 if learn else 1e-12)  # raw was fp32


def test_uniform_activity_is_lowered_inside_and_a_lone_peak_is_not() -> None:
    y = InhibitorySurround((1, 9, 9), strength=0.1)(torch.ones(1, 1, 9, 9))
    assert y[0, 0, 4, 4].item() == pytest.approx(0.9) and y[0, 0, 0, 0] > 0.95
    peak = torch.zeros(1, 1, 9, 9)
    peak[0, 0, 4, 4] = 1
    assert InhibitorySurround((1, 9, 9))(peak)[0, 0, 4, 4] == 1
    assert torch.equal(InhibitorySurround((1, 9, 9), strength=0.0)(peak), peak)


def test_the_strength_is_learnt_per_channel_and_stays_positive() -> None:
    torch.manual_seed(0)
    module = InhibitorySurround((3, 6, 6), learn=True).double()
    x = torch.rand(4, 3, 6, 6, dtype=torch.float64)
    module(x).sum().backward()
    assert module.raw_C.grad.shape == (3,) and (module.raw_C.grad < 0).all()
    with torch.no_grad():
        module.raw_C -= 100
    torch.testing.assert_close(module(x), x)  # never an excitation
    assert list(InhibitorySurround((3, 6, 6)).parameters()) == []


@pytest.mark.parametrize("learn", [False, True])
def test_keeps_channels_last_and_traces(learn: bool) -> None:
    x = torch.randn(4, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    module = InhibitorySurround((3, 6, 6), learn=learn)
    y = torch.compile(module, backend="eager", fullgraph=True)(x)
    assert torch.equal(y, module(x)) and y.is_contiguous(memory_format=torch.channels_last)
    assert module(x.bfloat16()).dtype == torch.bfloat16


def test_wrong_values() -> None:
    for options, match in (
        ({"strength": -1.0}, "strength must be at least 0"),
        ({"strength": 0.0, "learn": True}, "above 0 where it is learnt, got 0"),
        ({"inner": 2}, "must be odd with 1 <= inner < outer, got 2 and 7"),
        ({"outer": 3}, "got 3 and 3"),
        ({"shape": (3,)}, r"surround needs a place of shape \(C, H, W\)"),
    ):
        with pytest.raises(ValueError, match=match):
            InhibitorySurround(**{"shape": (3, 6, 6)} | options)
