"""DIST against its authors' numbers and numpy's correlation."""

import numpy as np
import pytest

from attnlab.distillation.dist import DIST, dist
from tests.reference.distilled import NUMBERS, agrees, output


@pytest.mark.parametrize(("key", "beta", "gamma"), [("dist_b1_g1", 1.0, 1.0), ("dist_b2_g05", 2.0, 0.5)])
def test_authors_numbers(key: str, beta: float, gamma: float) -> None:
    agrees(key, lambda zs: dist(zs, NUMBERS["kd_zt"], beta=beta, gamma=gamma), "kd_zs")


def test_equals_numpy() -> None:
    p, q = (NUMBERS[name].div(4).softmax(1).numpy() for name in ("kd_zs", "kd_zt"))
    inter = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    intra = 1 - np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)])
    found = dist(NUMBERS["kd_zs"], NUMBERS["kd_zt"], beta=1.0, gamma=3.0, temperature=4.0)
    assert float(found) == pytest.approx(16 * (inter + 3 * intra), rel=1e-4)  # eps 1e-8 of the authors beside small norms


def test_the_term() -> None:
    term = DIST(beta=2.0, gamma=0.5, weight=3.0)
    assert float(term(output(NUMBERS["kd_zs"]), output(NUMBERS["kd_zt"]))) == pytest.approx(3 * float(NUMBERS["dist_b2_g05_loss"]))
    for temperature in (-1, 0):
        with pytest.raises(ValueError, match=f"temperature must be above 0, got {temperature}"):
            DIST(temperature=temperature)
