"""SmoothGrad and SmoothTaylor against the authors' numbers, a slow loop and Stein's lemma."""

import pytest
import torch
from torch import Tensor, nn

from attnlab.evaluation.faithfulness import autvc
from attnlab.explainers.smooth_grad import SmoothGrad
from attnlab.explainers.smooth_taylor import SmoothTaylor, adaptive_sigma
from tests.golden_numbers import golden
from tests.reference.explained import small


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return golden("explainers")


def test_maps_are_the_authors(stored: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    x, target, noise = stored["x"], stored["target"], stored["noise"]
    for values in (2**20, 5000):  # in one pass, and in many
        monkeypatch.setattr("attnlab.explainers.attribution.VALUES", values)
        found = SmoothTaylor(sigma=float(stored["st_sigma"])).attribute(small(), x, target, noise_RBCHW=noise)
        torch.testing.assert_close(found, stored["smoothtaylor"], rtol=1e-10, atol=1e-14)
        torch.testing.assert_close(
            SmoothTaylor(sigma=9.0).explain(small(), x, target, noise_RBCHW=noise, sigma_B=torch.full((4,), 0.5)),
            stored["smoothtaylor"].sum(1, keepdim=True), rtol=1e-10, atol=1e-13,
        )  # fmt: skip
        found = SmoothGrad().attribute(small(), x, target, noise_RBCHW=noise)
        torch.testing.assert_close(found, stored["smoothgrad"], rtol=1e-10, atol=1e-14)
        found = SmoothGrad().explain(small(), x, target, noise_RBCHW=noise)
        torch.testing.assert_close(found, stored["smoothgrad"].sum(1, keepdim=True), rtol=1e-10, atol=1e-13)


class Quadratic(nn.Module):
    """Logit 0 is sum a x^2, logit 1 is linear."""

    def __init__(self, a: Tensor) -> None:
        super().__init__()
        self.register_buffer("a", a)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([(self.a * x**2).sum((1, 2, 3)), (self.a * x).sum((1, 2, 3))], 1)


def test_the_expectation_is_a_smoothed_curvature() -> None:
    """-sigma^2 d2y/dx^2: -2 a sigma^2 for the quadratic, 0 for the linear one, wherever the image is."""
    generator = torch.Generator().manual_seed(0)
    a, x = torch.rand(2, 3, 3, generator=generator), torch.zeros(2, 2, 3, 3)
    found = SmoothTaylor(sigma=0.7, num_draws=20000).attribute(Quadratic(a), x, torch.tensor([0, 1]))
    torch.testing.assert_close(found[0], -2 * a * 0.7**2, rtol=0.06, atol=0.01)
    torch.testing.assert_close(found[1], torch.zeros_like(a), rtol=0, atol=0.03)


def test_the_noise_of_smooth_grad_follows_each_image_s_range() -> None:
    a, x = torch.ones(1, 1, 4), torch.tensor([[[[0.0, 0.0, 0.0, 1.0]]], [[[0.0, 0.0, 0.0, 10.0]]]])
    found = SmoothGrad(num_draws=4000, noise_level=0.3).attribute(Quadratic(a), x, torch.tensor([0, 0]))
    torch.testing.assert_close(found[1] - 2 * x[1], 10 * (found[0] - 2 * x[0]), rtol=1e-3, atol=1e-3)


def test_the_seed_decides_and_a_map_does_not_depend_on_its_batch(stored: dict[str, Tensor]) -> None:
    x, target = stored["x"], stored["target"]
    for make in (lambda seed: SmoothTaylor(num_draws=5, seed=seed), lambda seed: SmoothGrad(num_draws=5, seed=seed)):
        whole = make(0).explain(small(), x, target)
        torch.testing.assert_close(make(0).explain(small(), x[2:3], target[2:3]), whole[2:3], rtol=1e-10, atol=1e-13)
        assert not torch.allclose(make(1).explain(small(), x, target), whole)


def test_adaptive_noising_is_the_authors(stored: dict[str, Tensor]) -> None:
    """Alone, every evaluation is theirs in order; together, images come to the same."""
    network, ends = small(), []
    for images in (slice(0, 1), slice(1, 2), slice(0, 2)):
        x, target, noise = stored["x"][images], stored["target"][images], stored["noise"][:, images]
        trace: list[tuple[float, float]] = []

        def objective(sigma_B: Tensor, x=x, target=target, noise=noise, trace=trace) -> Tensor:
            value_B = autvc(SmoothTaylor().explain(network, x, target, noise_RBCHW=noise, sigma_B=sigma_B), smallest=5)
            trace.append((float(sigma_B[0]), float(value_B[0])))
            return value_B

        ends.append(adaptive_sigma(objective, x.abs().mean((1, 2, 3)), max_iterations=12))
        if len(x) == 1:
            b = images.start
            torch.testing.assert_close(torch.tensor(trace, dtype=torch.float64), stored[f"adapt{b}_trace"], rtol=1e-9, atol=1e-10)
            torch.testing.assert_close(torch.cat(ends[-1]), stored[f"adapt{b}_best"], rtol=1e-9, atol=1e-10)
            heat = SmoothTaylor().explain(network, x, target, noise_RBCHW=noise, sigma_B=ends[-1][0])
            torch.testing.assert_close(heat[0, 0], stored[f"adapt{b}_heat"], rtol=1e-8, atol=1e-12)
    for alone_0, alone_1, together in zip(*ends):
        torch.testing.assert_close(together, torch.cat([alone_0, alone_1]), rtol=1e-9, atol=1e-10)


def test_adaptive_noising_ends_after_its_stops() -> None:
    """An objective that only gets worse: four moves to something worse, and the start is the best."""
    calls: list[Tensor] = []

    def objective(sigma_B: Tensor) -> Tensor:
        calls.append(sigma_B)
        return torch.full_like(sigma_B, float(len(calls)))

    best, least = adaptive_sigma(objective, torch.tensor([0.5, 1.0]))
    assert best.tolist() == [0.5, 1.0] and least.tolist() == [1, 1] and len(calls) == 1 + 2 * 4


def test_stops_are_counted_in_a_row() -> None:
    """Two moves to something worse, one to something better, then none: four more moves to something worse end the walk."""
    calls: list[Tensor] = []

    def objective(sigma_B: Tensor) -> Tensor:
        calls.append(sigma_B)
        return torch.full_like(sigma_B, 0.0 if len(calls) == 6 else float(len(calls)))

    best, least = adaptive_sigma(objective, torch.tensor([0.5]))
    assert least.tolist() == [0] and torch.equal(best, calls[5]) and len(calls) == 1 + 2 * 2 + 1 + 2 * 4


def test_what_is_refused() -> None:
    for make in (SmoothTaylor, SmoothGrad):
        with pytest.raises(ValueError, match="num_draws must be at least 1"):
            make(num_draws=0)
    with pytest.raises(ValueError, match="got 150 and -1"):
        SmoothTaylor(sigma=-1)
