"""Correlation congruence against RepDistiller's numbers, and its embeddings."""

import itertools

import pytest

from attnlab.distillation.cc import CC, cc
from tests.reference.distilled import NUMBERS, agrees, output


def test_authors_numbers() -> None:
    agrees("cc", lambda x: cc(x, NUMBERS["kd_et9"]), "kd_es")


def test_equals_a_loop() -> None:
    delta = (NUMBERS["kd_es"] - NUMBERS["kd_et9"]).abs().tolist()
    sums = [sum(a * b for a, b in zip(one, two, strict=True)) for one, two in itertools.pairwise(delta)]
    assert float(cc(NUMBERS["kd_es"], NUMBERS["kd_et9"])) == pytest.approx(sum(sums) / len(sums), rel=1e-12)


def test_one_image_has_no_neighbour() -> None:
    one = NUMBERS["kd_es"][:1].clone().requires_grad_()
    cc(one, NUMBERS["kd_et9"][:1]).backward()
    assert cc(one, NUMBERS["kd_et9"][:1]) == 0 and not one.grad.any()


def test_the_term_embeds_both_and_learns_to() -> None:
    term = CC({"features": (9,)}, {"features": (11,)}, dim_embedded=4).double()
    term(output(features=NUMBERS["kd_es"]), output(features=NUMBERS["kd_et"])).backward()
    assert {tuple(p.shape) for p in term.parameters()} == {(4, 9), (4, 11), (4,)}
    assert all(p.grad.abs().sum() > 0 for p in term.parameters())
    assert CC({"features": (9,)}, {"features": (11,)}, dim_embedded=1).embed_student[0].out_features == 1
    with pytest.raises(ValueError, match="dim_embedded must be at least 1, got 0"):
        CC({"features": (9,)}, {"features": (11,)}, dim_embedded=0)
