"""Superpixels: SLIC against scikit-image's segments, the grid, and which segments touch."""

import pytest
import torch

from attnlab.explainers import superpixels
from attnlab.explainers.superpixels import adjacency, grid_segments, segments_of, slic
from tests.golden_numbers import golden


@pytest.mark.parametrize("level", [0, 1, 2])
def test_slic_is_scikit_image_s(level: int) -> None:
    stored = golden("explainers", "mfpp_")
    found = slic(stored["image8"].permute(2, 0, 1), 50 * 2**level)
    assert torch.equal(found, stored["segments"][level].long())


def test_slic_does_not_depend_on_the_normalisation_when_it_is_given() -> None:
    image = golden("explainers", "mfpp_")["image8"].permute(2, 0, 1)[None] / 255.0
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]
    x_BCHW = (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    (found,) = segments_of(x_BCHW, 100, mean=mean, std=std)
    assert (found == slic(image[0], 100)).float().mean() > 0.99  # float32 may turn a tie


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 5, 17), (3, 16, 16), (4, 9, 9), (1, 1, 1)])
def test_segments_are_numbered_and_connected(channels: int, height: int, width: int) -> None:
    for x_CHW in (torch.rand(channels, height, width, generator=torch.Generator().manual_seed(0)), torch.ones(channels, height, width)):
        for num in (1, 6, 1000):
            found = slic(x_CHW, num)
            assert found.shape == (height, width) and torch.equal(found.unique(), torch.arange(int(found.max()) + 1))
            for segment in found.unique():
                reached = _reached(found == segment)
                assert torch.equal(reached, found == segment)


def _reached(inside: torch.Tensor) -> torch.Tensor:
    """What can be reached in `inside` from its first pixel."""
    reached = torch.zeros_like(inside)
    reached.view(-1)[inside.flatten().nonzero()[0]] = True
    while True:
        padded = torch.nn.functional.pad(reached, (1, 1, 1, 1))
        grown = (reached | padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]) & inside
        if torch.equal(grown, reached):
            return reached
        reached = grown


def test_without_blurring_and_with_no_segment_above_three_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    x, asked = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0)), []
    plain = slic(x, 9, sigma=0)
    assert torch.isfinite(plain.double()).all() and not torch.equal(plain, slic(x, 9))
    connected = superpixels._connected
    monkeypatch.setattr(superpixels, "_connected", lambda nearest, *sizes: asked.append(sizes) or connected(nearest, *sizes))
    slic(x, 9)
    assert asked == [(8, 48)]  # half a cell of 144 / 9 pixels, and three


def test_a_grid_is_of_rectangles() -> None:
    assert grid_segments(4, 4, 4).tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    for height, width, num in ((7, 30, 20), (3, 3, 100), (1, 8, 4), (28, 28, 49)):
        found = grid_segments(height, width, num)
        counts = torch.bincount(found.flatten())
        assert counts.min() >= 1 and 0.5 * min(num, height * width) <= len(counts) <= 1.5 * num
    assert grid_segments(28, 28, 49).max() == 48


def test_adjacency_is_a_slow_loop() -> None:
    segments = slic(torch.rand(3, 12, 10, generator=torch.Generator().manual_seed(1)), 12)
    expected = torch.zeros(int(segments.max()) + 1, int(segments.max()) + 1, dtype=torch.bool)
    for i in range(12):
        for j in range(10):
            for y, x in ((i + 1, j), (i, j + 1)):
                if y < 12 and x < 10 and segments[i, j] != segments[y, x]:
                    expected[segments[i, j], segments[y, x]] = expected[segments[y, x], segments[i, j]] = True
    assert torch.equal(adjacency(segments), expected)


def test_lab_of_known_colours() -> None:
    colours = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0, 0, 1], [0.01, 0.01, 0.01]], dtype=torch.float64)
    expected = torch.tensor([[0.0, 0, 0], [100, 0, 0], [32.30, 79.20, -107.86], [0.70, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(superpixels._lab(colours.T[:, :, None])[..., 0].T, expected, rtol=0, atol=0.02)
