"""Decoupled distillation against mdistiller's numbers, a loop, and the identity it comes from."""

import math

import pytest
import torch

from attnlab.distillation.dkd import DKD, dkd
from attnlab.distillation.kd import kd
from tests.reference.distilled import NUMBERS, agrees, output

ZT, Y = NUMBERS["kd_zt"], NUMBERS["kd_y"]


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("dkd_a1_b8", {}),
        ("dkd_a1_b0", {"alpha": 1, "beta": 0}),
        ("dkd_a0_b1", {"alpha": 0, "beta": 1}),
        ("dkd_a1_b1_T1", {"alpha": 1, "beta": 1, "temperature": 1}),
    ],
)
def test_authors_numbers(key: str, options: dict) -> None:
    agrees(key, lambda zs: dkd(zs, ZT, Y, **options), "kd_zs")


def test_it_is_kd_where_the_others_are_weighted_by_their_probability() -> None:
    """KD = TCKD + (1 - p_target) NCKD (eq. 5 of the paper), image by image."""
    zs = NUMBERS["kd_zs"]
    for image in range(len(zs)):
        rows = (zs[[image]], ZT[[image]], Y[[image]])
        others = 1 - float(ZT[image].softmax(0)[Y[image]])
        parts = dkd(*rows, alpha=1, beta=0, temperature=1) + others * dkd(*rows, alpha=0, beta=1, temperature=1)
        assert float(parts) == pytest.approx(float(kd(*rows[:2], temperature=1)), rel=1e-12)


def test_no_probability_underflows() -> None:
    zs = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    loss = dkd(zs, -zs.detach(), torch.tensor([0]), temperature=1)
    loss.backward()
    assert math.isfinite(loss.item()) and zs.grad.isfinite().all()


def test_warmup_and_soft_labels() -> None:
    given = {"out": output(NUMBERS["kd_zs"]), "teacher": output(ZT), "target": Y}
    whole = float(DKD(warmup=0)(**given, progress=torch.tensor(0.0)))
    assert whole == pytest.approx(float(NUMBERS["dkd_a1_b8_loss"]))
    for progress, part in ((0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.9, 1.0)):
        assert float(DKD(warmup=0.2)(**given, progress=torch.tensor(progress))) == pytest.approx(part * whole, rel=1e-6)
    with pytest.raises(ValueError, match="takes no soft labels"):
        DKD()(**given | {"target": torch.rand(6, 7)}, progress=torch.tensor(0.0))
    with pytest.raises(ValueError, match=r"warmup is a fraction of training in \[0, 1\], got 20"):
        DKD(warmup=20)
