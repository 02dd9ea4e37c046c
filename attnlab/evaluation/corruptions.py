"""Corruptions of images at five severities, as CIFAR-10-C has them (Hendrycks and Dietterich, arXiv 1903.12261).

Legend: N images, H, W, C. All take pixels (N, H, W, C) in 0..255 as uint8, a severity 1..5 and a NumPy generator, and give uint8.

The parameters are those of the authors' `make_cifar_c.py`, for images of about 32 x 32; where that script has 32, the image's size stands
here. Every image has draws of its own. All 15 corruptions of the benchmark are here, five of them in `attnlab.evaluation.displacement`;
frost lays a stand-in of ours on the images, where the authors have photographs.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from attnlab.evaluation.displacement import (
    Pixels,
    elastic_transform,
    frost,
    glass_blur,
    motion_blur,
    pixels_of,
    plasma_fractal,
    snow,
    zoomed,
)


def gaussian_noise(x: Pixels, severity: int, generator: Generator) -> Pixels:
    """x + c e, e standard normal."""
    scale = (0.04, 0.06, 0.08, 0.09, 0.10)[severity - 1]
    return pixels_of(x / 255.0 + scale * generator.standard_normal(x.shape))


def shot_noise(x: Pixels, severity: int, generator: Generator) -> Pixels:
    """Poisson(c x) / c."""
    photons = (500, 250, 100, 75, 50)[severity - 1]
    return pixels_of(generator.poisson(x / 255.0 * photons) / photons)


def impulse_noise(x: Pixels, severity: int, generator: Generator) -> Pixels:
    """A share c of the values (each channel by itself, as scikit-image's `s&p`) becomes 0 or 1, one as likely as the other."""
    share = (0.01, 0.02, 0.03, 0.05, 0.07)[severity - 1]
    hit, salt = generator.random(x.shape) <= share, generator.random(x.shape) <= 0.5
    return np.where(hit, np.where(salt, 255, 0), x).astype(np.uint8)


def defocus_blur(x: Pixels, severity: int, generator: Generator) -> Pixels:
    """Convolution with a disk of radius r that was blurred itself by a Gaussian, 3 cells wide; borders mirrored without their edge."""
    from scipy.ndimage import correlate

    radius, blur = ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1))[severity - 1]
    line = np.arange(-8, 9)
    disk = (line[:, None] ** 2 + line**2 <= radius**2).astype(np.float32)
    taps = np.exp(-(np.arange(-1, 2) ** 2) / (2 * blur**2))
    taps /= taps.sum()
    kernel = correlate(correlate(disk / disk.sum(), taps[:, None], mode="mirror"), taps[None], mode="mirror")
    return pixels_of(correlate(x / 255.0, kernel[None, :, :, None], mode="mirror"))


def zoom_blur(x: Pixels, severity: int, generator: Generator) -> Pixels:
    """The mean of the image and its centre enlarged by 1, 1.01, ... (bilinear; the step's rounding is the authors')."""
    factors = np.arange(1, (1.06, 1.11, 1.16, 1.21, 1.26)[severity - 1], 0.01)
    image = (x / 255.0).astype(np.float32)
    return pixels_of((image + sum(zoomed(image, factor) for factor in factors)) / (len(factors) + 1))


def fog(x: Pixels, severity: int, generator: Generator) -> Pixels:
    """A plasma fractal is added, and the image's largest value kept."""
    amount, decay = ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75))[severity - 1]
    num, height, width, _ = x.shape
    size = max(32, 1 << (max(height, width) - 1).bit_length())
    image = x / 255.0
    largest = image.max((1, 2, 3), keepdims=True)
    plasma = np.stack([plasma_fractal(size, decay, generator)[:height, :width] for _ in range(num)])
    return pixels_of((image + amount * plasma[..., None]) * largest / (largest + amount))


def brightness(x: Pixels, severity: int, generator: Generator) -> Pixels:
    """V of HSV plus c, at most 1: all channels times max(V + c) / V, so hue and saturation stay; black becomes grey."""
    amount = (0.05, 0.1, 0.15, 0.2, 0.3)[severity - 1]
    image = x / 255.0
    value = image.max(3, keepdims=True)
    raised = np.minimum(value + amount, 1)
    return pixels_of(np.where(value > 0, image / np.where(value > 0, value, 1) * raised, raised))


def contrast(x: Pixels, severity: int, generator: Generator) -> Pixels:
    """Values move towards their channel's mean: (x - m) c + m."""
    share = (0.75, 0.5, 0.4, 0.3, 0.15)[severity - 1]
    image = x / 255.0
    mean = image.mean((1, 2), keepdims=True)
    return pixels_of((image - mean) * share + mean)


def pixelate(x: Pixels, severity: int, generator: Generator) -> Pixels:
    """Down to a share c of the size and back by box filters."""
    share = (0.95, 0.9, 0.85, 0.75, 0.65)[severity - 1]
    _, height, width, _ = x.shape

    def one(image):
        from PIL import Image

        return image.resize((int(width * share), int(height * share)), Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)

    return _by_pillow(x, one)


def jpeg_compression(x: Pixels, severity: int, generator: Generator) -> Pixels:
    """Through a JPEG file of quality c; the result depends a little on the JPEG library."""
    quality = (80, 65, 58, 50, 40)[severity - 1]

    def one(image):
        from PIL import Image

        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _by_pillow(x, one)


CORRUPTIONS: dict[str, Callable[[Pixels, int, Generator], Pixels]] = {
    function.__name__: function
    for function in (
        *(gaussian_noise, shot_noise, impulse_noise, defocus_blur, zoom_blur),
        *(fog, brightness, contrast, pixelate, jpeg_compression),
        *(glass_blur, motion_blur, snow, frost, elastic_transform),  # last: a corruption's place is part of its seed
    )
}


def _by_pillow(x: Pixels, one: Callable) -> Pixels:
    from PIL import Image

    grey = x.shape[3] == 1
    return np.stack([np.asarray(one(Image.fromarray(image[..., 0] if grey else image))).reshape(image.shape) for image in x])
