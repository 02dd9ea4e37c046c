"""Probabilistic knowledge transfer against RepDistiller's numbers and a loop."""

import math

import pytest

from attnlab.distillation.pkt import PKT, pkt
from tests.reference.distilled import NUMBERS, agrees, output


def test_authors_numbers() -> None:
    agrees("pkt", lambda x: pkt(x, NUMBERS["kd_et"]), "kd_es")


def test_equals_a_loop() -> None:
    ours, theirs, eps, total = NUMBERS["kd_es"], NUMBERS["kd_et"], 1e-7, 0.0
    num = len(ours)
    for i in range(num):
        rows = [[(1 + float(x[i] @ x[j] / ((x[i].norm() + eps) * (x[j].norm() + eps)))) / 2 for j in range(num)] for x in (ours, theirs)]
        s, t = ([value / sum(row) for value in row] for row in rows)
        total += sum(b * math.log((b + eps) / (a + eps)) for a, b in zip(s, t, strict=True))
    assert float(pkt(ours, theirs)) == pytest.approx(total / num**2, rel=1e-10)


def test_it_is_nought_at_the_teacher_whatever_the_scale() -> None:
    x = NUMBERS["kd_es"]
    assert abs(pkt(4 * x, x)) < 1e-9
    term = PKT({"features": (9,)}, {"features": (11,)}, weight=2.0)
    assert float(term(output(features=x), output(features=NUMBERS["kd_et"]))) == pytest.approx(2 * float(NUMBERS["pkt_loss"]))
