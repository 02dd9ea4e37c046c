"""Flow matrices against RepDistiller's numbers and a loop."""

import pytest
import torch
from torch.nn import functional as F

from attnlab.distillation.fsp import FSP, flow, fsp
from tests.reference.distilled import NUMBERS, agrees, output

TEACHER = [NUMBERS[f"fsp_ft{i}"] for i in range(3)]
STUDENT_SHAPES = {"layer1": (4, 8, 8), "layer2": (5, 4, 4), "layer3": (3, 4, 4)}
TEACHER_SHAPES = {"layer1": (4, 4, 4), "layer2": (5, 4, 4), "layer3": (3, 2, 2)}


def test_authors_numbers() -> None:
    agrees("fsp", lambda *maps: fsp(maps, TEACHER), "fsp_fs0", "fsp_fs1", "fsp_fs2")


def test_flow_equals_a_loop() -> None:
    one, two = NUMBERS["fsp_fs0"], NUMBERS["fsp_fs1"]
    pooled = F.avg_pool2d(one, 2)
    expected = torch.stack(
        [torch.stack([torch.stack([(p * q).mean() for q in second]) for p in first]) for first, second in zip(pooled, two, strict=True)]
    )
    torch.testing.assert_close(flow(one, two), expected, rtol=1e-12, atol=1e-14)


def test_the_term() -> None:
    term = FSP(STUDENT_SHAPES, TEACHER_SHAPES, weight=1.0)
    values = ({f"layer{i + 1}": NUMBERS[f"fsp_f{who}{i}"] for i in range(3)} for who in "st")
    assert float(term(*(output(**of) for of in values))) == pytest.approx(float(NUMBERS["fsp_loss"]), rel=1e-12)


def test_errors() -> None:
    with pytest.raises(ValueError, match="places: layer1 has 4 channels and layer1 of the teacher 9; fsp needs as many"):
        FSP(STUDENT_SHAPES, TEACHER_SHAPES | {"layer1": (9, 4, 4)})
    with pytest.raises(ValueError, match="places: layer1: give at least 2"):
        FSP(STUDENT_SHAPES, TEACHER_SHAPES, places="layer1")
    with pytest.raises(ValueError, match=r"one gives \(9,\), and this compares maps"):
        FSP({"one": (9,), "two": (9,)}, {"one": (9,), "two": (9,)}, places=["one", "two"])
