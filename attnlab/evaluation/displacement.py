"""The five corruptions that move pixels or lay something upon them: glass, motion, snow, frost and elastic transform, with what they draw.

Legend, parameters and source: `attnlab.evaluation.corruptions`, which names them with the others.
"""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]


def glass_blur(x: Pixels, severity: int, generator: Generator) -> Pixels:
    """A Gaussian blur, then every pixel from the last to the first takes the value of one up to `reach` before it, and a blur again.

    The released code means to swap the two pixels; of views, it copies, and so does this.
    """
    sigma, reach, rounds = ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2))[severity - 1]
    num, height, width, _ = x.shape
    moved, images = (blurred(x / 255.0, sigma) * 255).astype(np.uint8), np.arange(num)
    for _ in range(rounds):
        for row in range(height - reach, reach, -1):
            for column in range(width - reach, reach, -1):
                across, down = generator.integers(-reach, reach, (2, num))
                moved[:, row, column] = moved[images, row + down, column + across]
    return pixels_of(blurred(moved / 255.0, sigma))


def motion_blur(x: Pixels, severity: int, generator: Generator) -> Pixels:
    """Blur along a direction within 45 degrees of the horizontal."""
    radius, sigma = ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5))[severity - 1]
    angles = generator.uniform(-45, 45, len(x))
    return np.stack([along(image, angle, radius=radius, sigma=sigma) for image, angle in zip(x, angles)])


def snow(x: Pixels, severity: int, generator: Generator) -> Pixels:
    """Flakes above a threshold of enlarged noise, blurred along their fall, on a whitened image; and the same turned by 180 degrees."""
    mean, scale, zoom, threshold, radius, sigma, kept = (
        (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
        (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
    )[severity - 1]
    flakes = zoomed(generator.normal(mean, scale, (*x.shape[:3], 1)), zoom)
    flakes = pixels_of(np.where(flakes < threshold, 0, flakes))
    angles = generator.uniform(-135, -45, len(x))
    layer = np.stack([along(image, angle, radius=radius, sigma=sigma) for image, angle in zip(flakes, angles)]) / 255.0
    image = x / 255.0
    grey = image if x.shape[3] == 1 else image @ np.array([[0.299], [0.587], [0.114]])
    whitened = kept * image + (1 - kept) * np.maximum(image, grey * 1.5 + 0.5)
    return pixels_of(whitened + layer + np.rot90(layer, 2, (1, 2)))


def frost(x: Pixels, severity: int, generator: Generator) -> Pixels:
    """c_1 x + c_2 frost. The authors lay photographs of frost on the images, which are theirs: here it is bright crests of a plasma
    fractal (our stand-in, with their strengths)."""
    kept, amount = ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))[severity - 1]
    num, height, width, _ = x.shape
    size = max(32, 1 << (max(height, width) - 1).bit_length())
    plasma = np.stack([plasma_fractal(size, 1.5, generator)[:height, :width] for _ in range(num)])
    crests = 1 - np.abs(2 * plasma - 1)
    return pixels_of(kept * x / 255.0 + amount * crests[..., None])


def elastic_transform(x: Pixels, severity: int, generator: Generator) -> Pixels:
    """A random affine map, whose three points move by up to c_3 S, then displacements of at most c_1 S, smoothed with sigma c_2 S; S the
    image's shorter side. Bilinear."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    stretch, smooth, shift = ((0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03))[severity - 1]
    _, height, width, channels = x.shape
    size = min(height, width)
    centre, reach = np.array([width // 2, height // 2], dtype=float), size // 3
    points = centre + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    column, row = np.meshgrid(np.arange(width, dtype=float), np.arange(height, dtype=float))
    out = np.empty(x.shape)
    for image, made in zip(x / 255.0, out):
        moved = points + generator.uniform(-shift * size, shift * size, points.shape)
        back = np.linalg.solve(np.c_[moved, np.ones(3)], points)  # (x', y', 1) of the result -> (x, y) of the image
        source_x, source_y = (back[0, k] * column + back[1, k] * row + back[2, k] for k in (0, 1))
        across, down = (
            gaussian_filter(generator.uniform(-1, 1, (height, width)), smooth * size, mode="reflect", truncate=3) * stretch * size
            for _ in range(2)
        )
        for k in range(channels):
            warped = map_coordinates(image[..., k], (source_y, source_x), order=1, mode="mirror")
            made[..., k] = map_coordinates(warped, (row + down, column + across), order=1, mode="reflect")
    return pixels_of(out)


def along(image: Pixels, angle: float, *, radius: int, sigma: float) -> Pixels:
    """ImageMagick's motion blur of (H, W, C): 2 radius + 1 pixels that lie in one direction, weights half a normal; edges go on."""
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    down, across = (np.ceil(steps * part - 0.5).astype(int) for part in (np.sin(np.deg2rad(angle)), np.cos(np.deg2rad(angle))))
    rows = np.clip(np.arange(image.shape[0]) + down[:, None], 0, image.shape[0] - 1)
    columns = np.clip(np.arange(image.shape[1]) + across[:, None], 0, image.shape[1] - 1)
    taken = image[rows[:, :, None], columns[:, None, :]]
    return np.rint(np.tensordot(weights / weights.sum(), taken, 1)).astype(np.uint8)


def blurred(x: NDArray, sigma: float) -> NDArray:
    """Every channel of every image under a Gaussian; edges go on (scikit-image's default)."""
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest")


def plasma_fractal(size: int, decay: float, generator: Generator) -> NDArray[np.float64]:
    """Diamond-square height map (size, size) in [0, 1], periodic; size a power of two; noise shrinks by `decay` a level."""
    field = np.zeros((size, size))
    step, wobble = size, 100.0

    def mean_of(total: NDArray[np.float64]) -> NDArray[np.float64]:
        return total / 4 + wobble * generator.uniform(-wobble, wobble, total.shape)

    while step >= 2:
        half = step // 2
        corners = field[::step, ::step]
        total = corners + np.roll(corners, -1, 0)
        field[half::step, half::step] = mean_of(total + np.roll(total, -1, 1))
        centres = field[half::step, half::step]
        field[::step, half::step] = mean_of(centres + np.roll(centres, 1, 0) + corners + np.roll(corners, -1, 1))
        field[half::step, ::step] = mean_of(centres + np.roll(centres, 1, 1) + corners + np.roll(corners, -1, 0))
        step, wobble = half, wobble / decay
    field -= field.min()
    return field / field.max()


def zoomed(x: NDArray, factor: float) -> NDArray:
    """The centre of the images, enlarged to their size."""
    from scipy.ndimage import zoom

    height, width = x.shape[1:3]
    crops = [int(np.ceil(length / factor)) for length in (height, width)]
    first = [(length - crop) // 2 for length, crop in zip((height, width), crops)]
    large = zoom(x[:, first[0] : first[0] + crops[0], first[1] : first[1] + crops[1]], (1, factor, factor, 1), order=1)
    first = [(have - length) // 2 for have, length in zip(large.shape[1:3], (height, width))]
    return large[:, first[0] : first[0] + height, first[1] : first[1] + width]


def pixels_of(x: NDArray) -> Pixels:
    """[0, 1] -> 0..255, cut off as the authors' np.uint8 does."""
    return (np.clip(x, 0, 1) * 255).astype(np.uint8)
