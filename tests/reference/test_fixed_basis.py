"""The fixed-basis loss against a loop (fp64), and its laws."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.losses.fixed_basis import FixedBasis
from attnlab.network import Output
from tests.component_rules import close


def of(loss, z: torch.Tensor, y: torch.Tensor, **asked) -> torch.Tensor:
    (value,) = loss(Output(z, None, None), y, **asked).values()
    return value


def batch(K: int = 5, B: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(B, K, dtype=torch.float64, generator=generator), torch.randint(0, K, (B,), generator=generator)


def test_fixed_basis_by_a_loop() -> None:
    z, y = batch()
    expected = 0.0
    for row, label in zip(z.tolist(), y.tolist()):
        c = [value / math.sqrt(sum(v * v for v in row)) for value in row]
        expected += (1 - c[label]) ** 2 + 0.7 * sum(v * v for j, v in enumerate(c) if j != label)
    assert of(FixedBasis(5, 3, weight=0.7), z, y).item() == pytest.approx(expected / 7, abs=1e-12)


def test_fixed_basis_is_zero_at_the_basis_whatever_the_length_and_largest_opposite_to_it() -> None:
    e = torch.eye(4, dtype=torch.float64)
    loss = FixedBasis(4, 4)
    assert of(loss, 17 * e, torch.arange(4)).item() == 0 and of(loss, -0.1 * e, torch.arange(4)).item() == pytest.approx(4)


@settings(deadline=None)
@given(st.floats(0.01, 100), st.integers(0, 1000))
def test_fixed_basis_does_not_see_lengths_nor_the_order_of_classes(scale: float, seed: int) -> None:
    z, y = batch()
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    moved = torch.empty_like(order).scatter_(0, order, torch.arange(5))
    close(of(FixedBasis(5, 3), scale * z[:, order], moved[y]), of(FixedBasis(5, 3), z, y))


def test_fixed_basis_of_logits_of_zeros_has_a_finite_gradient() -> None:
    z = torch.zeros(2, 3, requires_grad=True)
    of(FixedBasis(3, 3), z, torch.tensor([0, 1])).backward()
    assert z.grad.isfinite().all()


def test_soft_labels() -> None:
    z, y = batch()
    loss = FixedBasis(5, 3)
    close(of(loss, z, F.one_hot(y, 5).float()), of(loss, z, y))
    other = (y + 1) % 5
    mixed = 0.3 * F.one_hot(y, 5) + 0.7 * F.one_hot(other, 5)
    close(of(loss, z, mixed.double()), 0.3 * of(loss, z, y) + 0.7 * of(loss, z, other))


def test_half_precision_is_taken_to_fp32() -> None:
    z, y = batch()
    value = of(FixedBasis(5, 3), z.bfloat16(), y)
    assert value.dtype == torch.float32 and value.isfinite()


def test_without_the_other_classes() -> None:
    z, y = batch()
    cosine = F.normalize(z)[torch.arange(7), y]
    close(of(FixedBasis(5, 3, weight=0.0), z, y), (1 - cosine).square().mean())


@pytest.mark.parametrize("options", [{"weight": -1.0}, {"weight": math.inf}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        FixedBasis(3, 3, **options)
