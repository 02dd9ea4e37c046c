"""Mean and standard deviation of a training set, for the normalisation.   Legend: N images, C channels."""

import torch
from torch import Tensor

from attnlab.data.images import FileSet, ImageSet
from attnlab.data.protocols import stratified_order


def full_range(images: Tensor) -> float:
    """The value that is white: 255 of uint8, 1 of floats."""
    return 1.0 if images.is_floating_point() else 255.0


def mean_std(images: ImageSet | FileSet) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Per channel, fractions of the full range; exact integer sums for images, of at most 10,000 of a set that is not in memory."""
    if isinstance(images, FileSet):
        images = images.subset(stratified_order(images.labels, 0)[:10_000]).in_memory()
    x = images.images
    if x.is_floating_point():
        mean_C, var_C, unit = x.double().mean(0), x.double().var(0, correction=0), 1.0
    else:
        dims, count = (0, 2, 3), x.numel() // x.shape[1]
        total_C = sum(chunk.sum(dims, dtype=torch.int64) for chunk in x.split(4096))
        square_C = sum(chunk.int().square().sum(dims, dtype=torch.int64) for chunk in x.split(4096))
        mean_C, unit = total_C.double() / count, 255.0
        var_C = square_C.double() / count - mean_C.square()
    std_C = var_C.clamp_min(0).sqrt()
    std_C = torch.where(std_C > 0, std_C, torch.full_like(std_C, unit))  # a channel without contrast: leave its scale alone
    return tuple((mean_C / unit).tolist()), tuple((std_C / unit).tolist())


def of_all_channels(mean: tuple[float, ...], std: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """One mean and deviation for all three channels together."""
    whole = sum(mean) / 3
    square = sum(s * s + m * m for m, s in zip(mean, std)) / 3
    return (whole,) * 3, ((square - whole * whole) ** 0.5,) * 3
