"""Relational distillation against RepDistiller's numbers and loops over pairs and triplets."""

import pytest
import torch

from attnlab.distillation.rkd import RKD, angles, distances, rkd_angle, rkd_distance
from tests.reference.distilled import NUMBERS, agrees, output


def test_authors_numbers() -> None:
    agrees("rkd_d", lambda x: rkd_distance(x, NUMBERS["kd_et"]), "kd_es")
    agrees("rkd_a", lambda x: rkd_angle(x, NUMBERS["kd_et"]), "kd_es")
    term = RKD({"features": (9,)}, {"features": (11,)})
    agrees("rkd_25_50", lambda x: term(output(features=x), output(features=NUMBERS["kd_et"])), "kd_es")


def test_distances_and_angles_equal_loops() -> None:
    x = NUMBERS["kd_es"]
    num = len(x)
    d = torch.tensor([[float((one - other).norm()) for other in x] for one in x], dtype=torch.float64)
    torch.testing.assert_close(distances(x), d / (d.sum() / (num * (num - 1))), rtol=1e-9, atol=1e-9)
    found = angles(x)
    for i, j, k in [(0, 1, 2), (3, 3, 1), (5, 0, 0), (2, 2, 2), (1, 4, 0)]:
        one, other = x[j] - x[i], x[k] - x[i]
        cosine = float(one @ other / (one.norm() * other.norm()).clamp(min=1e-12))
        assert float(found[i, j, k]) == pytest.approx(cosine, abs=1e-9)


def test_it_is_nought_for_a_scaled_turned_shifted_teacher() -> None:
    x = NUMBERS["kd_es"]
    turn, _ = torch.linalg.qr(torch.randn(9, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
    moved = 3 * x @ turn + 1
    assert rkd_distance(moved, x) < 1e-12 and rkd_angle(moved, x) < 1e-12


def test_coinciding_images_have_a_gradient() -> None:
    x = torch.ones(3, 4, requires_grad=True)
    (rkd_distance(x, torch.randn(3, 4)) + rkd_angle(x, torch.randn(3, 4))).backward()
    assert x.grad.isfinite().all()


def test_two_images_that_coincide_for_the_student_alone_have_no_gradient_of_their_own() -> None:
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    x = torch.cat([x, x[:1]]).requires_grad_()
    rkd_angle(x, torch.randn(5, 5, generator=torch.Generator().manual_seed(1))).backward()
    assert 0 < x.grad.abs().max() < 10  # 1e9 by normalising the step of 0
