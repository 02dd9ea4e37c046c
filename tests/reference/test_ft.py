"""The loss of factor transfer against RepDistiller's numbers and a loop."""

import pytest
from torch.nn import functional as F

from attnlab.distillation.ft import FT, ft
from tests.reference.distilled import NUMBERS, agrees, output


def test_authors_numbers() -> None:
    agrees("ft", lambda x: ft(x, NUMBERS["kd_ft0"]), "kd_fs0")


def test_equals_a_loop() -> None:
    ours, theirs, total = F.avg_pool2d(NUMBERS["kd_fs0"], 2), NUMBERS["kd_ft0"], 0.0
    for one, other in zip(ours, theirs, strict=True):
        q_s, q_t = (x.square().mean(0) for x in (one, other))
        total += float((q_s / q_s.norm() - q_t / q_t.norm()).abs().mean())
    assert float(ft(NUMBERS["kd_fs0"], theirs)) == pytest.approx(total / len(ours), rel=1e-12)
    term = FT({"layer4": (4, 8, 8)}, {"layer4": (6, 4, 4)}, weight=2.0)
    assert float(term(output(layer4=NUMBERS["kd_fs0"]), output(layer4=theirs))) == pytest.approx(2 * total / len(ours))


def test_vectors_are_refused() -> None:
    with pytest.raises(ValueError, match=r"features gives \(9,\), and this compares maps"):
        FT({"features": (9,)}, {"features": (9,)}, places="features")
