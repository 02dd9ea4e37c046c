"""Attention transfer against RepDistiller's numbers, a loop, and the places it is given."""

import pytest
import torch

from attnlab.distillation.at import AT, at
from tests.reference.distilled import NUMBERS, agrees, output

SHAPES = {"input": (3, 8, 8), "layer1": (4, 8, 8), "layer2": (5, 4, 4), "features": (5,)}
TEACHER = {"layer1": (6, 4, 4), "layer2": (7, 4, 4), "pool": (7,)}


def test_authors_numbers() -> None:
    agrees("at", lambda one, two: at(one, NUMBERS["kd_ft0"]) + at(two, NUMBERS["kd_ft1"]), "kd_fs0", "kd_fs1")


def test_equals_a_loop() -> None:
    ours, theirs, total = NUMBERS["kd_fs1"], NUMBERS["kd_ft1"], 0.0
    for one, other in zip(ours, theirs, strict=True):
        q_s, q_t = (sum(channel**2 for channel in x) for x in (one, other))
        total += float(((q_s / q_s.norm() - q_t / q_t.norm()) ** 2).mean())
    assert float(at(ours, theirs)) == pytest.approx(total / len(ours), rel=1e-12)


def test_it_is_nought_at_the_teacher_whatever_the_scale_and_the_order_of_channels() -> None:
    x = NUMBERS["kd_fs0"]
    assert at(3 * x.flip(1), x) < 1e-24


def test_the_term_sums_over_its_pairs() -> None:
    term = AT(SHAPES, TEACHER, weight=2.0)
    assert term.places == term.teacher_places == ("layer1", "layer2") and not list(term.parameters())
    student = output(layer1=NUMBERS["kd_fs0"], layer2=NUMBERS["kd_fs1"])
    teacher = output(layer1=NUMBERS["kd_ft0"], layer2=NUMBERS["kd_ft1"])
    assert float(term(out=student, teacher=teacher)) == pytest.approx(2 * float(NUMBERS["at_loss"]), rel=1e-12)


def test_places_of_both_may_have_names_of_their_own_and_go_in_the_order_of_the_pass() -> None:
    term = AT(SHAPES, {"trunk.b": (6, 4, 4), "trunk.a": (7, 4, 4)}, places=["layer2", "layer1"], teacher_places="trunk.*")
    assert list(term.pairs_of_places()) == [("layer1", "trunk.b"), ("layer2", "trunk.a")]


def test_products_of_half_precision_do_not_overflow() -> None:
    term = AT(SHAPES, TEACHER, places="layer2")
    large = torch.full((2, 5, 4, 4), 60000.0, dtype=torch.float16)
    large[:, :, 0] = 1
    assert term(output(layer2=large), output(layer2=-large)).isfinite()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"places": "layr1"}, r"places: no place of the student matches 'layr1'; nearest: layer1"),
        ({"teacher_places": "layer3"}, r"teacher_places: no place of the teacher matches 'layer3'"),
        ({"places": "layer1", "teacher_places": "layer*"}, r"layer1 of the student do not pair with layer1, layer2 of the teacher"),
        ({"places": "features", "teacher_places": "pool"}, r"places: features gives \(5,\), and this compares maps"),
    ],
)
def test_errors(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AT(SHAPES, TEACHER, **options)
