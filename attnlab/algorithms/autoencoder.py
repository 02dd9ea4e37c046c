"""A small encoder and decoder of images, for algorithms that make images of codes.   Shapes: B batch, C, H, W, Z code."""

import math

from torch import Tensor, nn
from torch.nn import functional as F


class Encoder(nn.Sequential):
    """(B, C, H, W) -> (B, Z): two 3x3 convolutions of stride 2 with ReLUs, of `width` and twice that, and a Linear."""

    def __init__(self, shape: tuple[int, ...], code: int, *, width: int) -> None:
        channels, height, width_px = image_shape(shape)
        cells = math.ceil(height / 4) * math.ceil(width_px / 4)
        super().__init__(
            nn.Conv2d(channels, width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(2 * width * cells, code),
        )


class Decoder(nn.Module):
    """(B, Z) -> (B, C, H, W): a Linear, twice a doubling (nearest) and a 3x3 convolution with ReLU, one to the channels; cut to size."""

    def __init__(self, shape: tuple[int, ...], code: int, *, width: int) -> None:
        super().__init__()
        channels, self.height, self.width = image_shape(shape)
        self.start = (2 * width, math.ceil(self.height / 4), math.ceil(self.width / 4))
        self.linear = nn.Linear(code, math.prod(self.start))
        self.conv1, self.conv2 = nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.Conv2d(2 * width, width, 3, padding=1)
        self.last = nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, z_BZ: Tensor) -> Tensor:
        x = self.linear(z_BZ).relu().view(-1, *self.start)
        for conv in (self.conv1, self.conv2):
            x = conv(F.interpolate(x, scale_factor=2.0, mode="nearest")).relu()
        return self.last(x)[..., : self.height, : self.width]


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """ValueError for vectors."""
    if len(shape) != 3:
        raise ValueError(f"codes are of images, and there are vectors of shape {tuple(shape)}; use another algorithm")
    return shape[0], shape[1], shape[2]
