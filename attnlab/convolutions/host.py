"""What a layer that stands in the place of a convolution takes over from it."""

from typing import TypedDict

from torch import nn


class Geometry(TypedDict):
    """Arguments of torch.nn.functional.unfold and, kernel_size aside, of conv2d."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]


def geometry_of(host: nn.Module | None, *, who: str) -> Geometry:
    """Kernel size, stride, padding and dilation of the displaced nn.Conv2d; ValueError for what `who` cannot stand for."""
    if not isinstance(host, nn.Conv2d):
        got = "nothing (how: replace gives one)" if host is None else type(host).__name__
        raise ValueError(f"{who} stands in the place of a Conv2d, got {got}")
    if host.groups != 1:
        raise ValueError(f"{who} needs a convolution without groups, got groups={host.groups}; choose other places")
    if host.padding_mode != "zeros" or isinstance(host.padding, str):
        raise ValueError(f"{who} needs zero padding given in pixels, got padding={host.padding}, padding_mode={host.padding_mode}")
    return Geometry(kernel_size=host.kernel_size, stride=host.stride, padding=host.padding, dilation=host.dilation)


def output_size(height: int, width: int, geometry: Geometry) -> tuple[int, int]:
    """Height and width after a convolution of this geometry."""
    sizes = zip((height, width), *(geometry[key] for key in ("kernel_size", "stride", "padding", "dilation")))
    height, width = ((size + 2 * pad - step * (kernel - 1) - 1) // stride + 1 for size, kernel, stride, pad, step in sizes)
    return height, width
