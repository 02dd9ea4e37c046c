"""A U-Net (Ronneberger et al., 1505.04597) with two output heads.   Legend: B batch, C channels, H, W image size."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class TwoHeadedUNet(nn.Module):
    """x_BCHW -> two images of its shape. Encoder and decoder are shared, the heads are 3x3 convolutions, their range is not limited.

    A level: two 3x3 convolutions with BatchNorm and ReLU, then dropout; max-pools down, nearest-neighbour upsampling and concatenation
    with the encoder's level up. `widths`: channels a level, from the image down. Images of any size of at least 2^(levels - 1).
    """

    def __init__(self, channels: int, widths: tuple[int, ...] = (16, 32, 64), dropout: float = 0.2) -> None:
        super().__init__()
        ins = (channels, *widths[:-1])
        self.down = nn.ModuleList(_level(before, width, dropout) for before, width in zip(ins, widths))
        self.up = nn.ModuleList(_level(below + width, width, dropout) for below, width in zip(widths[:0:-1], widths[-2::-1]))
        self.heads = nn.ModuleList(nn.Conv2d(widths[0], channels, 3, padding=1) for _ in range(2))

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        levels: list[Tensor] = []
        for index, level in enumerate(self.down):
            levels.append(level(F.max_pool2d(levels[-1], 2) if index else x_BCHW))
        value = levels.pop()
        for level, skipped in zip(self.up, reversed(levels)):
            value = level(torch.cat([F.interpolate(value, size=skipped.shape[2:], mode="nearest"), skipped], 1))
        first, second = (head(value) for head in self.heads)
        return first, second


def _level(before: int, width: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for channels in (before, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout2d(dropout) if dropout else nn.Identity())
