"""GCCS against stored numbers of its formula (fp64), torch's own KL, and its laws."""

import pytest
import torch

from attnlab.losses.gccs import GCCS
from attnlab.network import Output
from tests.component_rules import close
from tests.golden_numbers import golden

STORED = golden("components", "gccs_")
MU, SIGMA = STORED["mu_sigma"].tolist()


def loss_of(z: torch.Tensor, y: torch.Tensor, **options) -> torch.Tensor:
    options = {"mu": MU, "sigma": SIGMA, "eps": 0.0} | options
    return sum(GCCS(z.shape[1], 7, **options)(Output(z, None, None), y).values())


def test_diagonal_form_equals_the_stored_numbers() -> None:
    z = STORED["x"].clone().requires_grad_()
    loss = loss_of(z, STORED["y"])
    close(loss, STORED["diag_loss"])
    loss.backward()
    close(z.grad, STORED["diag_gx"])
    for c, expected in enumerate(STORED["diag_perclass"]):
        own = STORED["y"] == c
        close(loss_of(STORED["x"][own], STORED["y"][own]), expected)


def test_full_form_equals_the_stored_numbers_and_torchs_kl() -> None:
    own = STORED["y"] == 0
    z = STORED["x"].clone().requires_grad_()
    loss = loss_of(z[own], STORED["y"][own], covariance="full")
    close(loss, STORED["full_class0"])
    loss.backward()
    close(z.grad, STORED["full_gx"])
    x = STORED["x"][own]
    normal = torch.distributions.MultivariateNormal
    found = normal(x.mean(0), x.T.cov(correction=0))
    target = normal(MU * torch.eye(4).double()[0], SIGMA**2 * torch.eye(4).double())
    close(2 * torch.distributions.kl_divergence(found, target), loss)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_samples_of_the_target_have_almost_no_loss_and_moving_away_costs(covariance: str) -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(3).repeat(4000)
    z = 70 * torch.eye(3).double()[y] + torch.randn(12000, 3, generator=generator, dtype=torch.float64)
    losses = [loss_of(z + shift, y, mu=70.0, sigma=1.0, covariance=covariance).item() for shift in (0, 1, 2)]
    assert losses[0] < 0.01 and losses[1] == pytest.approx(3, abs=0.2) and losses[2] == pytest.approx(12, abs=0.4)


def test_kurtosis_term_is_near_zero_for_normal_values_and_not_for_uniform_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    y = torch.zeros(50_000, dtype=torch.long)
    normal, uniform = torch.randn(50_000, 2, generator=generator), torch.rand(50_000, 2, generator=generator)
    terms = [GCCS(2, 2, kurtosis=2.0)(Output(z.double(), None, None), y)["kurtosis"].item() for z in (normal, uniform)]
    assert terms[0] < 0.02 and terms[1] == pytest.approx(2 * 1.2**2, rel=0.02)


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_classes_of_one_image_or_none_count_for_nothing_and_leave_finite_gradients(covariance: str) -> None:
    z = torch.randn(6, 5, requires_grad=True)
    y = torch.tensor([0, 0, 0, 1, 2, 2])
    loss = loss_of(z, y, covariance=covariance, eps=1e-3, kurtosis=0.1)
    loss.backward()
    assert loss.isfinite() and z.grad.isfinite().all() and (z.grad[3] == 0).all() and (z.grad[0] != 0).all()
    alone = torch.randn(3, 5, requires_grad=True)
    loss_of(alone, torch.tensor([0, 1, 2]), covariance=covariance, kurtosis=0.1).backward()
    assert (alone.grad == 0).all()


def test_refusals() -> None:
    for options in ({"mu": 0.0}, {"sigma": -1.0}, {"eps": -1.0}, {"covariance": "round"}, {"kurtosis": -1.0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            GCCS(3, 3, **options)
    with pytest.raises(ValueError, match="class numbers"):
        loss_of(torch.randn(3, 4), torch.rand(3, 4))
