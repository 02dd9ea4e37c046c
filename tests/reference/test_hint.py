"""Hints against RepDistiller's numbers, and the regressor of every relation of sizes."""

import pytest
import torch
from torch import nn

from attnlab.distillation.hint import Hint, hint, regressor
from tests.reference.distilled import NUMBERS, agrees, output


def test_authors_numbers() -> None:
    agrees("hint", lambda x: hint(x, NUMBERS["kd_et9"]), "kd_es")


def test_authors_numbers_through_the_regressor() -> None:
    term = Hint({"layer2": (4, 8, 8)}, {"layer2": (6, 4, 4)}, weight=1.0).double()
    names = {"conv.weight": "0.weight", "conv.bias": "0.bias"}
    names |= {f"bn.{key}": f"1.{key}" for key in ("weight", "bias", "running_mean", "running_var")}
    stored = {name: NUMBERS[f"hintreg_p_{key}"] for key, name in names.items()}
    term.regressors[0].load_state_dict(stored, strict=False)
    agrees("hintreg", lambda x: term(output(layer2=x), output(layer2=NUMBERS["kd_ft0"])), "kd_fs0")


@pytest.mark.parametrize(
    ("student", "teacher", "kind"),
    [
        ((4, 8, 8), (6, 4, 4), nn.Conv2d),
        ((4, 4, 4), (6, 8, 8), nn.ConvTranspose2d),
        ((4, 4, 4), (6, 4, 4), nn.Conv2d),
        ((4, 9, 7), (6, 7, 7), nn.Conv2d),
        ((4,), (6,), nn.Linear),
    ],
)
def test_the_regressor_fits(student: tuple[int, ...], teacher: tuple[int, ...], kind: type) -> None:
    follow = regressor(student, teacher)
    assert isinstance(follow[0] if isinstance(follow, nn.Sequential) else follow, kind)
    assert follow(torch.randn(2, *student)).shape == (2, *teacher)


def test_errors() -> None:
    with pytest.raises(ValueError, match=r"a map \(4, 3, 3\) of the student cannot follow \(6, 8, 8\) of the teacher"):
        Hint({"layer2": (4, 3, 3)}, {"layer2": (6, 8, 8)})
    with pytest.raises(ValueError, match="give maps or vectors in both"):
        Hint({"layer2": (4, 3, 3)}, {"features": (6,)}, teacher_places="features")
