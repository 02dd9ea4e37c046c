"""KD against RepDistiller's numbers, a loop, and what it must do."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.distillation.kd import KD, kd
from tests.reference.distilled import NUMBERS, agrees, output


@pytest.mark.parametrize("temperature", [1, 4])
def test_authors_numbers(temperature: int) -> None:
    agrees(f"kd_T{temperature}", lambda zs: kd(zs, NUMBERS["kd_zt"], temperature=temperature), "kd_zs")


def test_equals_a_loop() -> None:
    zs, zt, temperature, total = NUMBERS["kd_zs"], NUMBERS["kd_zt"], 2.5, 0.0
    for ours, theirs in zip(zs.tolist(), zt.tolist(), strict=True):
        q, p = ([math.exp(z / temperature) for z in row] for row in (ours, theirs))
        q, p = [value / sum(q) for value in q], [value / sum(p) for value in p]
        total += sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert float(kd(zs, zt, temperature=temperature)) == pytest.approx(temperature**2 * total / len(zs), rel=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), temperature=st.floats(0.5, 20))
def test_it_is_nought_at_the_teacher_and_above_it_elsewhere(seed: int, temperature: float) -> None:
    zs, zt = torch.randn(2, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert kd(zs, zt, temperature=temperature) > 0
    assert abs(kd(zt + 3, zt, temperature=temperature)) < 1e-12  # logits are known up to a constant


def test_the_term_weighs_and_computes_in_full_precision() -> None:
    zs, zt = NUMBERS["kd_zs"], NUMBERS["kd_zt"]
    term = KD(weight=0.5, temperature=1)(out=output(zs), teacher=output(zt))
    assert float(term) == pytest.approx(0.5 * float(NUMBERS["kd_T1_loss"]))
    assert KD()(output(zs.bfloat16()), output(zt.bfloat16())).dtype == torch.float32


def test_errors() -> None:
    with pytest.raises(ValueError, match="temperature must be above 0, got 0"):
        KD(temperature=0)
