"""Inhibitory surround: every activation is lowered by what goes on around it."""
# B batch, C channels, H height, W width

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape


class InhibitorySurround(nn.Module):
    """Our reading of convolution with inhibitory neurons (Ullah, Reilly and Madden, "Enhancing Semantic Segmentation of Aerial Images with
    Inhibitory Neurons").

        y = x - w_c ring(x),   ring(x)_ij = mean of x over the outer x outer square around ij without its inner x inner centre

    channel by channel; beyond the map's border x counts as 0. Place it before an activation, after the convolution and its norm: activity
    around a position lowers it, where it is uniform, and edges stand out.

    Established (abstract): the output of a convolution is reduced by the activity outside its receptive field. Ours: the ring and its mean,
    that negative activity raises, the sizes, the strength, and that it may be learnt.

    Args:
        shape: (C, H, W) of the place.
        strength: w, >= 0; what it starts from where it is learnt.
        learn: learn w_c > 0, one a channel (softplus of a parameter); needs a strength above 0.
        inner, outer: odd sides of the two squares, 1 <= inner < outer, in units of the map; 3 is a 3 x 3 convolution's own field.

    Shapes: x (B, C, H, W) -> same, same dtype and memory format. Raises ValueError for values out of range or a place without (C, H, W).
    """

    def __init__(self, shape: tuple[int, ...], *, strength: float = 0.1, learn: bool = False, inner: int = 3, outer: int = 7) -> None:
        super().__init__()
        check_shape(shape, "CHW", what="surround")
        if not 0 <= strength < float("inf") or (learn and strength == 0):
            raise ValueError(f"strength must be at least 0, above 0 where it is learnt, got {strength}")
        if not 1 <= inner < outer or inner % 2 == 0 or outer % 2 == 0:
            raise ValueError(f"inner and outer must be odd with 1 <= inner < outer, got {inner} and {outer}")
        self.strength, self.inner, self.outer = strength, inner, outer
        self.raw_C = nn.Parameter(torch.full((shape[0],), math.log(math.expm1(strength)))) if learn else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        ring_BCHW = ring_mean(x_BCHW, inner=self.inner, outer=self.outer)
        if self.raw_C is None:
            return torch.add(x_BCHW, ring_BCHW, alpha=-self.strength)
        return x_BCHW - F.softplus(self.raw_C).to(x_BCHW.dtype).view(-1, 1, 1) * ring_BCHW

    def extra_repr(self) -> str:
        return f"strength={self.strength}, learn={self.raw_C is not None}, inner={self.inner}, outer={self.outer}"


def ring_mean(x_BCHW: Tensor, *, inner: int, outer: int) -> Tensor:
    """Mean over the square of side `outer` around each position without that of side `inner`; 0 beyond the border."""
    sums = [F.avg_pool2d(x_BCHW, side, stride=1, padding=side // 2, divisor_override=1) for side in (outer, inner)]
    return (sums[0] - sums[1]) / (outer**2 - inner**2)
