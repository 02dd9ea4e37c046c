"""Corruptions: each against an obvious loop or an independent library, image by image, and what noise comes to on average."""

import colorsys
import io
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from attnlab.evaluation import corruptions
from attnlab.evaluation.corruption import Corruption
from attnlab.evaluation.corruptions import (
    CORRUPTIONS,
    brightness,
    contrast,
    defocus_blur,
    gaussian_noise,
    impulse_noise,
    jpeg_compression,
    pixelate,
    plasma_fractal,
    shot_noise,
    zoom_blur,
)

RGB = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def random() -> np.random.Generator:
    return np.random.default_rng(1)


@pytest.mark.parametrize("name", list(CORRUPTIONS))
@pytest.mark.parametrize("shape", [(2, 32, 32, 3), (2, 20, 17, 1)])
def test_shape_range_and_severity(name: str, shape: tuple[int, ...]) -> None:
    smooth = np.linspace(20, 230, np.prod(shape[1:3])).reshape(1, *shape[1:3], 1) + np.zeros(shape)
    x = smooth.astype(np.uint8)
    x[:, 5:9, 5:9] = 250
    before = x.copy()
    mild, hard = (CORRUPTIONS[name](x, severity, random()) for severity in (1, 5))
    assert mild.shape == hard.shape == shape and mild.dtype == np.uint8 and np.array_equal(x, before)
    distances = [np.abs(one.astype(float) - x).mean() for one in (mild, hard)]
    assert distances[0] < distances[1] or name == "elastic_transform"  # its published shifts fall as its displacements roughen
    assert np.array_equal(hard, CORRUPTIONS[name](x, 5, random()))


def test_noise_on_average() -> None:
    grey = np.full((4, 64, 64, 3), 128, np.uint8)
    for severity, scale in enumerate((0.04, 0.06, 0.08, 0.09, 0.10), 1):
        assert gaussian_noise(grey, severity, random()).std() / 255 == pytest.approx(scale, rel=0.03)
    for severity, photons in enumerate((500, 250, 100, 75, 50), 1):
        assert shot_noise(grey, severity, random()).std() / 255 == pytest.approx((128 / 255 / photons) ** 0.5, rel=0.03)
    for severity, share in enumerate((0.01, 0.02, 0.03, 0.05, 0.07), 1):
        noisy = impulse_noise(grey, severity, random())
        assert (noisy == 0).mean() == pytest.approx(share / 2, rel=0.15) and (noisy == 255).mean() == pytest.approx(share / 2, rel=0.15)


def test_brightness_is_v_of_hsv() -> None:
    bright = brightness(RGB, 4, random())
    for old, new in zip(RGB.reshape(-1, 3)[:200] / 255, bright.reshape(-1, 3)[:200]):
        hue, saturation, value = colorsys.rgb_to_hsv(*old)
        expected = np.array(colorsys.hsv_to_rgb(hue, saturation, min(value + 0.2, 1))) * 255
        assert np.abs(new - np.floor(expected + 1e-9)).max() <= 1


def test_contrast_keeps_a_share_of_the_spread() -> None:
    for severity, share in enumerate((0.75, 0.5, 0.4, 0.3, 0.15), 1):
        assert contrast(RGB, severity, random()).std((1, 2)).mean() == pytest.approx(share * RGB.std((1, 2)).mean(), rel=0.03)


def test_contrast_pixelate_and_jpeg_by_hand() -> None:
    for image, low, boxes, file in zip(RGB, *(function(RGB, 3, random()) for function in (contrast, pixelate, jpeg_compression))):
        mean = (image / 255).mean((0, 1))
        assert np.array_equal(low, np.uint8(np.clip((image / 255 - mean) * 0.4 + mean, 0, 1) * 255))
        small = Image.fromarray(image).resize((27, 27), Image.Resampling.BOX)
        assert np.array_equal(boxes, np.asarray(small.resize((32, 32), Image.Resampling.BOX)))
        stored = io.BytesIO()
        Image.fromarray(image).save(stored, "JPEG", quality=58)
        assert np.array_equal(file, np.asarray(Image.open(stored)))


def test_defocus_is_the_convolution() -> None:
    """Severity 4: radius 1 is a plus of five cells; a blur of 0.2 gives the next cell exp(-12.5) of the centre."""
    side = np.exp(-12.5) / (1 + 2 * np.exp(-12.5))
    taps = np.array([side, 1 - 2 * side, side])
    plus = np.zeros((5, 5))
    plus[1:4, 2] = plus[2, 1:4] = 0.2
    blurred = np.zeros((7, 7))
    for i in range(3):
        for j in range(3):
            blurred[i : i + 5, j : j + 5] += taps[i] * taps[j] * plus
    image = np.pad(RGB[0, :, :, 0] / 255, 3, mode="reflect")
    expected = sum(blurred[i, j] * image[i : i + 32, j : j + 32] for i in range(7) for j in range(7))
    assert np.abs(defocus_blur(RGB, 4, random())[0, :, :, 0] - expected * 255).max() <= 1


def test_zoom_is_bilinear_from_corner_to_corner() -> None:
    """Severity 1: factors 1 to 1.06 (rounding keeps the last), each a crop of ceil(32 / f) cells sampled at round(crop f) points."""
    image = RGB[0, :, :, 1] / 255
    layers = [image]
    for factor in (1, 1.01, 1.02, 1.03, 1.04, 1.05, 1.06):
        crop = int(np.ceil(32 / factor))
        first, size = (32 - crop) // 2, round(crop * factor)
        points = np.linspace(0, crop - 1, size)
        part = image[first : first + crop, first : first + crop]
        rows = np.stack([np.interp(points, np.arange(crop), row) for row in part])
        large = np.stack([np.interp(points, np.arange(crop), column) for column in rows.T]).T
        trim = (size - 32) // 2
        layers.append(large[trim : trim + 32, trim : trim + 32])
    assert np.abs(zoom_blur(RGB, 1, random())[0, :, :, 1] - np.mean(layers, 0) * 255).max() <= 1.001


def test_plasma() -> None:
    field = plasma_fractal(32, 2.0, random())
    assert field.shape == (32, 32) and field.min() == 0 and field.max() == 1

    def roughness(decay: float) -> float:
        return float(np.abs(np.diff(plasma_fractal(64, decay, random()), axis=0)).mean())

    assert roughness(3.0) < roughness(1.75)


def test_the_evaluator(run) -> None:
    words = ["evaluator=[corruption]", "evaluator.corruption.names=[contrast,fog]", "evaluator.corruption.severities=[1,5]"]
    metrics = run(*words, "trainer.max_epochs=1")["metrics"]
    found = [metrics[f"corruption/{name}/acc"] for name in ("contrast", "fog")]
    assert metrics["corruption/mean/acc"] == pytest.approx(sum(found) / 2) and all(0 <= value <= 1 for value in found)
    assert metrics["corruption/mce"] == pytest.approx(1 - sum(found) / 2)
    baseline = {"contrast": 0.5, "fog": 0.8}
    ask = Corruption(names=["contrast", "fog"], severities=[1], num=10, baseline=baseline)
    ask.accuracy = lambda trained, pixels, labels, name, severity: {"contrast": 0.9, "fog": 0.4}[name]
    images = SimpleNamespace(images=torch.zeros(2, 1, 8, 8), shape=(1, 8, 8), labels=None)
    found = ask.run(SimpleNamespace(choice=lambda *args, **options: (None, images), seed=0))
    assert found["corruption/mce"] == pytest.approx((0.1 / 0.5 + 0.6 / 0.8) / 2) and found["corruption/mean/acc"] == pytest.approx(0.65)
    with pytest.raises(ValueError, match=r"baseline must give an error in \(0, 1\] for fog, got None"):
        Corruption(names=["fog"], baseline={"contrast": 0.5})
    with pytest.raises(ValueError, match=r"there is no corruption 'foq'; .*fog"):
        Corruption(names=["foq"])
    with pytest.raises(ValueError, match="severities are of 1 to 5"):
        Corruption(severities=[0])


def test_strengths_of_shot_noise_and_fog(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables of the authors' CIFAR-10-C, by what reaches the draws."""
    seen = []
    grey = np.full((1, 32, 32, 3), 255, dtype=np.uint8)
    draws = SimpleNamespace(poisson=lambda rate: seen.append(rate.max()) or rate)
    for severity in range(1, 6):
        assert (shot_noise(grey, severity, draws) == 255).all()
    assert seen == [500, 250, 100, 75, 50]
    decays = []
    monkeypatch.setattr(corruptions, "plasma_fractal", lambda size, decay, generator: decays.append(decay) or np.zeros((size, size)))
    for severity, amount in enumerate((0.2, 0.5, 0.75, 1, 1.5), 1):
        assert abs(corruptions.fog(grey, severity, draws).astype(float) - 255 / (1 + amount)).max() <= 1
    assert decays == [3, 3, 2.5, 2, 1.75]
