"""Corruptions that move pixels or lay something on them: against the released loops, ImageMagick's rule pixel by pixel, Pillow's warp."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from attnlab.evaluation import displacement
from attnlab.evaluation.displacement import along, elastic_transform, frost, glass_blur, motion_blur, snow

RGB = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


def random() -> np.random.Generator:
    return np.random.default_rng(1)


def test_glass_is_the_released_loop() -> None:
    """Severity 1: a blur of sigma 0.05 is none. The released statement, of views, copies."""
    image, draws = RGB[0].copy(), random()
    for row in range(31, 1, -1):
        for column in range(31, 1, -1):
            across, down = draws.integers(-1, 1, 2)
            image[row, column], image[row + down, column + across] = image[row + down, column + across], image[row, column]
    found = glass_blur(RGB[:1], 1, random())[0]
    assert np.abs(found.astype(int) - image).max() <= 2  # bytes twice through fractions, cut off
    assert (np.abs(found.astype(int) - RGB[0]) > 2).any()


@pytest.mark.parametrize("angle", [0.0, 33.0, -45.0, -100.0])
def test_motion_blur_pixel_by_pixel(angle: float) -> None:
    radius, sigma = 6, 1.5
    weights = [math.exp(-(j**2) / (2 * sigma**2)) for j in range(2 * radius + 1)]
    point = (math.sin(math.radians(angle)), math.cos(math.radians(angle)))
    found = along(RGB[0], angle, radius=radius, sigma=sigma)
    for row in range(0, 32, 5):
        for column in range(0, 32, 3):
            total = np.zeros(3)
            for j, weight in enumerate(weights):
                y = min(max(row + math.ceil(j * point[0] - 0.5), 0), 31)
                x = min(max(column + math.ceil(j * point[1] - 0.5), 0), 31)
                total += weight / sum(weights) * RGB[0, y, x]
            assert np.abs(found[row, column] - total).max() <= 0.5 + 1e-9


def test_strengths_and_angles_of_motion_blur(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(displacement, "along", lambda image, angle, **given: seen.append((angle, *given.values())) or image)
    draws = SimpleNamespace(uniform=lambda low, high, num: np.linspace(low, high, num))
    for severity in range(1, 6):
        motion_blur(RGB, severity, draws)
    assert [one[1:] for one in seen[::2]] == [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)]
    assert [one[0] for one in seen[:2]] == [-45, 45]


def test_snow_is_a_layer_and_its_half_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the blur of its fall. Severity 5 enlarges by 1.25; black images keep the layer and the whitening of black, c / 2."""
    monkeypatch.setattr(displacement, "along", lambda image, angle, **given: image)
    black = np.zeros((1, 32, 32, 3), np.uint8)
    noise = random().normal(0.1, 0.2, (1, 32, 32, 1))
    layer = np.uint8(np.clip(np.where(noise < 0.6, 0, noise), 0, 1) * 255) / 255
    expected = np.clip(layer + layer[:, ::-1, ::-1] + 0.05 * 0.5, 0, 1) * 255
    assert (layer > 0).any() and np.abs(snow(black, 1, random()) - expected).max() <= 1
    white = np.full((1, 32, 32, 1), 255, np.uint8)
    assert (snow(white, 5, random()) == 255).all()
    blue = np.zeros((1, 32, 32, 3), np.uint8)
    blue[..., 2] = 200
    quiet = SimpleNamespace(normal=lambda mean, scale, shape: np.zeros(shape), uniform=random().uniform)
    half = 0.114 * 200 / 255 * 1.5 + 0.5
    expected = [0.2 * half * 255, 0.2 * half * 255, 0.8 * 200 + 0.2 * max(200, half * 255)]
    assert np.abs(snow(blue, 5, quiet)[0, 3, 3] - expected).max() <= 1


def test_strengths_of_frost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(displacement, "plasma_fractal", lambda size, decay, generator: np.full((size, size), 0.5))  # all crest
    grey = np.full((1, 20, 24, 1), 100, np.uint8)
    for severity, (kept, amount) in enumerate(((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)), 1):
        assert np.abs(frost(grey, severity, random()) - (100 * kept + 255 * amount)).max() <= 1


def test_elastic_of_severity_1_is_pillows_affine_warp() -> None:
    draws, reach = random(), 10
    points = 16.0 + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = points + draws.uniform(-0.08 * 32, 0.08 * 32, (3, 2))
    a, b, c = np.linalg.solve(np.c_[moved, np.ones(3)], points[:, 0])
    d, e, f = np.linalg.solve(np.c_[moved, np.ones(3)], points[:, 1])
    centre = (a, b, c + 0.5 - 0.5 * (a + b), d, e, f + 0.5 - 0.5 * (d + e))  # Pillow counts from the corner of a pixel
    smooth = np.uint8(np.linspace(0, 200, 32)[:, None] + np.linspace(0, 55, 32))
    warped = Image.fromarray(smooth.astype(np.float32)).transform((32, 32), Image.Transform.AFFINE, centre, Image.Resampling.BILINEAR)
    found = elastic_transform(smooth[None, :, :, None], 1, random())[0, :, :, 0]
    inside = slice(8, 24)
    assert np.abs(found[inside, inside] - np.asarray(warped)[inside, inside]).max() <= 1
    assert np.abs(found[inside, inside].astype(int) - smooth[inside, inside]).max() > 4


def test_displacements_of_elastic() -> None:
    """Where all draws of a field are 1 it stays constant: a shift by stretch times the side."""
    ramp = np.uint8(np.tile(np.arange(32) * 5, (32, 1)))[None, :, :, None]
    for severity, stretch in ((2, 0.05), (3, 0.08), (4, 0.1), (5, 0.1)):
        draws = SimpleNamespace(uniform=lambda low, high, shape: np.zeros(shape) if shape == (3, 2) else np.ones(shape))
        found = elastic_transform(ramp, severity, draws)[0, 5:20, 5:20, 0]
        expected = (np.arange(5, 20) + stretch * 32) * 5
        assert np.abs(found - expected[None]).max() <= 1
