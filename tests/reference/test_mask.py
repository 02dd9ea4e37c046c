"""The optimised mask: its objective and gradient by slow loops, and a network that reads one patch."""

import pytest
import torch
from torch import Tensor, nn

from attnlab.explainers.mask import OptimisedMask, _moved
from tests.golden_numbers import golden
from tests.reference.explained import small


class Patch(nn.Module):
    """The logit of class 1 is linear in the mean brightness of one patch."""

    def forward(self, x: Tensor) -> Tensor:
        score = 12 * (x[:, 0, 4:12, 4:12].mean((1, 2)) - 0.5)
        return torch.stack([torch.zeros_like(score), score], 1)


@pytest.mark.parametrize(("method", "area"), [("gradient", 0.4), ("evolution", 3.0)])
def test_the_patch_is_found(method: str, area: float) -> None:
    explainer = OptimisedMask(method=method, num_cells=8, steps=80, reference="mean", jitter=0, num_pairs=30, area=area, tv=0.05)
    found = explainer.explain(Patch(), torch.ones(2, 1, 16, 16), torch.tensor([1, 1]))
    assert found.shape == (2, 1, 16, 16) and found.min() >= 0 and found.max() <= 1
    inside = torch.zeros(16, 16, dtype=torch.bool)
    inside[4:12, 4:12] = True
    hidden = found[0, 0] > 0.5 * found[0, 0].max()
    assert (hidden & inside).sum() / (hidden | inside).sum() > 0.8
    assert torch.equal(found[0], found[1])


def test_less_is_hidden_where_area_costs_more() -> None:
    areas = []
    for area in (0.05, 0.5, 3.0):
        explainer = OptimisedMask(num_cells=8, steps=60, reference="mean", area=area, tv=0.05, jitter=0)
        areas.append(float(explainer.explain(Patch(), torch.ones(1, 1, 16, 16), torch.tensor([1])).mean()))
    assert areas[0] > areas[1] > areas[2]


def test_the_penalty_is_a_slow_loop() -> None:
    mask = torch.rand(2, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for b in range(2):
        m = mask[b, 0]
        down = [abs(float(m[i + 1, j] - m[i, j])) ** 3 for i in range(2) for j in range(4)]
        right = [abs(float(m[i, j + 1] - m[i, j])) ** 3 for i in range(3) for j in range(3)]
        expected = 0.3 * (1 - float(m.mean())) + 0.7 * (sum(down) / 8 + sum(right) / 9)
        assert abs(float(OptimisedMask(area=0.3, tv=0.7).penalty(mask)[b]) - expected) < 1e-12


@pytest.mark.parametrize("rows", [3, 1000])
def test_evolution_estimates_the_gradient(rows: int) -> None:
    """Of a quadratic the antithetic estimate has no error but that of the draws' second moment."""
    explainer, generator = OptimisedMask(sigma=0.1), torch.Generator().manual_seed(0)
    at, slope = torch.randn(2, 1, 2, 3, generator=generator).double(), torch.randn(2, 3, generator=generator).double()
    noise = torch.randn(40, 2, 3, generator=generator).double()

    def objective(m: Tensor) -> Tensor:
        return (slope * m).sum((1, 2, 3)) + m.square().sum((1, 2, 3))

    found = explainer._evolved(objective, at, noise, rows)
    for b in range(2):
        exact = slope + 2 * at[b, 0]
        expected = sum((exact * e).sum() * e for e in noise) / len(noise)
        torch.testing.assert_close(found[b, 0], expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", ["gradient", "evolution"])
def test_a_map_does_not_depend_on_its_batch_and_the_draws_decide(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = golden("explainers")
    x, target, options = stored["x"], stored["target"], {"method": method, "steps": 4, "num_cells": 6, "num_pairs": 3, "jitter": 14}
    whole = OptimisedMask(**options).explain(small(), x, target)
    assert not torch.allclose(OptimisedMask(seed=1, **options).explain(small(), x, target), whole)
    draws = list(OptimisedMask(**options)._draws(x, None, None))
    given = {"moves_T2": torch.tensor([move for move, _ in draws]), "noise_Tnss": torch.stack([noise for _, noise in draws])}
    monkeypatch.setattr("attnlab.explainers.attribution.VALUES", 7000)
    torch.testing.assert_close(OptimisedMask(**options).explain(small(), x, target, **given), whole, rtol=1e-8, atol=1e-10)


def test_images_are_moved_by_the_slow_loop() -> None:
    x = torch.arange(12.0).view(1, 1, 3, 4)
    for down, right in ((0, 0), (0, 1), (1, 0), (-2, 1), (1, -3), (5, 5)):
        moved = [[float(x[0, 0, min(max(i - down, 0), 2), min(max(j - right, 0), 3)]) for j in range(4)] for i in range(3)]
        assert _moved(x, [down, right])[0, 0].tolist() == moved


def test_moves_are_jitter_of_an_image_of_224_pixels() -> None:
    moves = [move for move, _ in OptimisedMask(jitter=20, steps=300)._draws(torch.zeros(1, 1, 56, 70), None, None)]
    assert sorted({one for move in moves for one in move}) == list(range(-5, 6))


def test_what_is_refused() -> None:
    for options in ({"method": "annealing"}, {"reference": "noise"}, {"steps": 0}, {"lr": 0.0}, {"area": -1.0}):
        with pytest.raises(ValueError, match="must be"):
            OptimisedMask(**options)
