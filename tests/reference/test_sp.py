"""Similarity-preserving distillation against RepDistiller's numbers and a loop."""

import pytest
import torch

from attnlab.distillation.sp import SP, sp
from tests.reference.distilled import NUMBERS, agrees, output


def test_authors_numbers() -> None:
    agrees("sp", lambda one, two: sp(one, NUMBERS["kd_ft0"]) + sp(two, NUMBERS["kd_ft1"]), "kd_fs0", "kd_fs1")


def test_equals_a_loop() -> None:
    ours, theirs = NUMBERS["kd_fs0"], NUMBERS["kd_ft0"]
    num, total = len(ours), 0.0
    for i in range(num):
        rows = [[float((x[i] * x[j]).sum()) for j in range(num)] for x in (ours, theirs)]
        rows = [[value / sum(v * v for v in row) ** 0.5 for value in row] for row in rows]
        total += sum((a - b) ** 2 for a, b in zip(*rows, strict=True))
    assert float(sp(ours, theirs)) == pytest.approx(total / num**2, rel=1e-12)


def test_it_is_nought_at_the_teacher_whatever_the_scale() -> None:
    assert sp(5 * NUMBERS["kd_fs0"], NUMBERS["kd_fs0"]) < 1e-24


def test_the_term_takes_shapes_of_any_kind_in_full_precision() -> None:
    term = SP({"layer1": (4, 8, 8)}, {"features": (11,)}, places="layer1", teacher_places="features")
    student, teacher = output(layer1=NUMBERS["kd_fs0"]), output(features=NUMBERS["kd_et"])
    assert float(term(student, teacher)) == pytest.approx(3000 * float(sp(NUMBERS["kd_fs0"], NUMBERS["kd_et"])))
    with torch.autocast("cpu", torch.bfloat16):
        assert float(term(student, teacher)) == pytest.approx(3000 * float(sp(NUMBERS["kd_fs0"], NUMBERS["kd_et"])))
