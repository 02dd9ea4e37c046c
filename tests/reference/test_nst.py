"""Neuron selectivity transfer against RepDistiller's numbers and a loop over pairs of neurons."""

import pytest

from attnlab.distillation.nst import NST, nst
from tests.reference.distilled import NUMBERS, agrees, output


def test_authors_numbers() -> None:
    agrees("nst", lambda one, two: nst(one, NUMBERS["kd_ft0"]) + nst(two, NUMBERS["kd_ft1"]), "kd_fs0", "kd_fs1")


def test_equals_a_loop() -> None:
    ours, theirs = NUMBERS["kd_fs1"][:2], NUMBERS["kd_ft1"][:2]

    def mean_kernel(one, other) -> float:
        values = [float((p.flatten() @ q.flatten() / p.norm() / q.norm()) ** 2) for x, y in zip(one, other) for p in x for q in y]
        return sum(values) / len(values)

    expected = mean_kernel(ours, ours) + mean_kernel(theirs, theirs) - 2 * mean_kernel(ours, theirs)
    assert float(nst(ours, theirs)) == pytest.approx(expected, rel=1e-12)


def test_it_is_nought_at_the_teacher_whatever_the_order_of_channels() -> None:
    x = NUMBERS["kd_fs1"]
    assert abs(nst(x.flip(1), x)) < 1e-14
    term = NST({"layer2": (5, 4, 4)}, {"layer2": (7, 4, 4)}, weight=2.0)
    expected = 2 * float(nst(x, NUMBERS["kd_ft1"]))
    assert float(term(output(layer2=x), output(layer2=NUMBERS["kd_ft1"]))) == pytest.approx(expected)


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"features gives \(9,\), and this compares maps"):
        NST({"features": (9,)}, {"features": (9,)}, places="features")
