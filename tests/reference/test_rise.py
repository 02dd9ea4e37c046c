"""RISE against the authors' masks and maps, and its laws."""

import pytest
import torch
from torch import Tensor, nn

from attnlab.explainers.attribution import blurred
from attnlab.explainers.rise import Rise, grid_masks
from tests.golden_numbers import golden
from tests.reference.explained import small


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return golden("explainers")


@pytest.mark.parametrize("name", ["rise", "rise7"])
def test_masks_are_the_authors(stored: dict[str, Tensor], name: str) -> None:
    found = grid_masks(stored[f"{name}_grid"], stored[f"{name}_shift"], 32, 32)
    torch.testing.assert_close(found, stored[f"{name}_masks"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("values", [2**20, 20000])
def test_maps_are_the_authors(stored: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch, values: int) -> None:
    monkeypatch.setattr("attnlab.explainers.attribution.VALUES", values)
    rise = Rise(keep=float(stored["rise_p1"]))
    for c in range(5):
        found = rise.explain(small(), stored["x"], torch.full((4,), c), masks_NHW=stored["rise_masks"])
        torch.testing.assert_close(found[:, 0], stored["rise_saliency"][:, c], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("sigma, radii", [(0.5, (2, 2)), (1.2, (4, 3))])  # cut at three sigma, or at the image's side
def test_blurred_is_a_gaussian_window_mirrored_at_the_border(sigma: float, radii: tuple[int, int]) -> None:
    x = torch.randn(2, 3, 8, 4, generator=torch.Generator().manual_seed(0))
    taps = [torch.exp(-(torch.arange(-r, r + 1.0) ** 2) / (2 * sigma**2)) for r in radii]
    window = torch.outer(taps[0] / taps[0].sum(), taps[1] / taps[1].sum())
    wide = nn.functional.pad(x, (radii[1], radii[1], radii[0], radii[0]), mode="reflect")
    expected = nn.functional.conv2d(wide, window.expand(3, 1, -1, -1), groups=3)
    torch.testing.assert_close(blurred(x, sigma), expected)
    assert blurred(x, 0) is x


def test_masks_have_the_mean_that_is_asked_for() -> None:
    masks = Rise(num_masks=3000, keep=0.3).masks(20, 33)
    assert masks.shape == (3000, 20, 33) and masks.min() >= 0 and masks.max() <= 1
    torch.testing.assert_close(masks.mean(0), torch.full((20, 33), 0.3), rtol=0, atol=0.05)
    assert Rise(num_masks=5, num_cells=1).masks(4, 4).shape == (5, 4, 4)


class Pixels(nn.Module):
    """p(class 1) rises with the brightness of the top left quarter."""

    def forward(self, x: Tensor) -> Tensor:
        score = 20 * (x[:, 0, :8, :8].mean((1, 2)) - 0.5)
        return torch.stack([torch.zeros_like(score), score], 1)


def test_the_map_finds_what_the_network_reads() -> None:
    x = torch.ones(2, 1, 16, 16)
    found = Rise(num_masks=2000, num_cells=2).explain(Pixels(), x, torch.tensor([1, 0]))
    inside, outside = found[:, 0, 1:6, 1:6].mean((1, 2)), found[:, 0, 10:, 10:].mean((1, 2))
    assert inside[0] > outside[0] + 0.2 and inside[1] < outside[1] - 0.2


def test_the_seed_decides_and_a_map_does_not_depend_on_its_batch(stored: dict[str, Tensor]) -> None:
    x, target, rise = stored["x"], stored["target"], Rise(num_masks=30)
    whole = rise.explain(small(), x, target)
    torch.testing.assert_close(rise.explain(small(), x[3:], target[3:]), whole[3:], rtol=1e-10, atol=1e-13)
    assert not torch.allclose(Rise(num_masks=30, seed=1).explain(small(), x, target), whole)


def test_what_is_refused() -> None:
    for options in ({"num_masks": 0}, {"keep": 0.0}, {"num_cells": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            Rise(**options)
