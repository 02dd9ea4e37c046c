"""Variational information distillation against RepDistiller's numbers."""

import pytest
import torch

from attnlab.distillation.vid import VID, Variational
from tests.reference.distilled import NUMBERS, agrees, output


def test_authors_numbers() -> None:
    given = Variational(4, 6, hidden=5).double()
    given.load_state_dict({name: NUMBERS[f"vid_p_{name}"] for name in given.state_dict()})
    agrees("vid", lambda x: given(x, NUMBERS["kd_ft0"]), "kd_fs0", **dict(given.named_parameters()))


def test_it_begins_with_the_variance_that_was_asked_for() -> None:
    term = VID({"layer1": (4, 8, 8), "layer2": (5, 4, 4)}, {"layer1": (6, 4, 4), "layer2": (7, 4, 4)}, variance=3.0).double()
    for given in term.given:
        torch.testing.assert_close(torch.nn.functional.softplus(given.log_scale) + given.eps, torch.full_like(given.log_scale, 3.0))
    student = output(layer1=NUMBERS["kd_fs0"], layer2=NUMBERS["kd_fs1"])
    teacher = output(layer1=NUMBERS["kd_ft0"], layer2=NUMBERS["kd_ft1"])
    parts = [given(student.values[name], teacher.values[name]) for given, name in zip(term.given, term.places, strict=True)]
    assert float(term(student, teacher).detach()) == pytest.approx(float(sum(parts).detach()))


def test_errors() -> None:
    with pytest.raises(ValueError, match="variance must be above 1e-5, got 0"):
        VID({"layer1": (4, 8, 8)}, {"layer1": (6, 4, 4)}, variance=0)
    with pytest.raises(ValueError, match="variance must be above 1e-5, got 1e-05"):
        VID({"layer1": (4, 8, 8)}, {"layer1": (6, 4, 4)}, variance=1e-5)
    VID({"layer1": (4, 8, 8)}, {"layer1": (6, 4, 4)}, variance=1.5e-5)
    with pytest.raises(ValueError, match=r"features gives \(9,\), and this compares maps"):
        VID({"features": (9,)}, {"features": (9,)}, places="features")
