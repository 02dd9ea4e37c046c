"""Our reading of adaptive noise: its law against the same draws taken by hand, and what it does at test time."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.regularizers.adaptive_noise import AdaptiveNoise


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 10**6), strength=st.floats(0.01, 2), vectors=st.booleans())
def test_the_noise_is_the_formula(seed: int, strength: float, vectors: bool) -> None:
    torch.manual_seed(seed)
    shape = (3,) if vectors else (3, 2, 4)
    x = (torch.randn(5, *shape, dtype=torch.float64) * 4 + 2).requires_grad_()
    module = AdaptiveNoise(shape, strength=strength).double()
    torch.manual_seed(seed)
    y = module(x)
    torch.manual_seed(seed)
    noise = torch.randn(5, *shape, dtype=torch.float64)
    expected, running = x.detach().clone(), []
    for c in range(3):
        values = x[:, c].flatten().tolist()
        mean = sum(values) / len(values)
        var = sum((value - mean) ** 2 for value in values) / len(values)
        expected[:, c] += strength * var**0.5 * noise[:, c]
        running.append(0.9 + 0.1 * var)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(module.running_var, torch.tensor(running, dtype=torch.float64))
    assert torch.equal(torch.autograd.grad(y.sum(), x)[0], torch.ones_like(x))  # none through the deviation


def test_strength_is_a_fraction_of_each_channels_deviation() -> None:
    torch.manual_seed(0)
    x = torch.randn(256, 2, 8, 8) * torch.tensor([1.0, 10.0]).view(2, 1, 1)
    noise = AdaptiveNoise((2, 8, 8), strength=0.3)(x) - x
    torch.testing.assert_close(noise.std((0, 2, 3)) / x.std((0, 2, 3)), torch.full((2,), 0.3), atol=0.01, rtol=0)


def test_at_test_time() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 3, 4, 4)
    module = AdaptiveNoise((3, 4, 4))
    module(x * 2)
    fresh, off = copy.deepcopy(module).eval(), copy.deepcopy(module).eval()
    fresh.test, off.test = "fresh", "off"
    draw = torch.get_rng_state()
    y = module.eval()(x)
    assert torch.equal(torch.get_rng_state(), draw) and torch.equal(module(x), y) and not torch.equal(y, x)
    torch.testing.assert_close(module(x * 3) - x * 3, y - x)  # the deviation is that of training, not of the test batch
    assert torch.equal(module(x[:3]), y[:3])
    assert len({tuple(image.flatten().tolist()) for image in y - x}) == 6  # every image has its own noise
    assert not torch.equal(fresh(x), fresh(x))
    assert off(x) is x and AdaptiveNoise((3, 4, 4), strength=0.0)(x) is x


def test_keeps_channels_last_and_traces() -> None:
    x = torch.randn(4, 3, 6, 6).contiguous(memory_format=torch.channels_last)
    module = AdaptiveNoise((3, 6, 6))
    other = copy.deepcopy(module)
    torch.manual_seed(0)
    y = torch.compile(module, backend="eager", fullgraph=True)(x)
    torch.manual_seed(0)
    assert torch.equal(y, other(x)) and y.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(module.running_var, other.running_var)
    assert module(x.bfloat16()).dtype == torch.bfloat16 and module.running_var.dtype == torch.float32


def test_wrong_values() -> None:
    for options, match in (
        ({"strength": -0.1}, r"strength must be at least 0, got -0\.1"),
        ({"test": "on"}, "test must be seeded, fresh or off"),
        ({"momentum": 0.0}, r"momentum must be in \(0, 1\]"),
    ):
        with pytest.raises(ValueError, match=match):
            AdaptiveNoise((3, 4, 4), **options)
