# B batch, C channels, H W height and width of the map; rectangle_B5 = (cx, cy, w, h, theta); similarity_B4 = (dx, dy, p, k)
"""Equivariance of rectangular attention as a loss: when the map is shifted, turned and scaled, the rectangle should be so too."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

SHIFT, TURN, SCALE = 0.25, math.radians(30), 1.25  # how far a similarity goes at most; scales are in [1 / SCALE, SCALE]


def draw_similarity(like: Tensor, *, rotate: bool = True) -> Tensor:
    """One similarity y = k R_p x + d per rectangle of `like` (B, 5): d uniform in [-.25, .25]^2, p in +-30 degrees, log k in +-log 1.25.

    From the default generator of its device. Without `rotate` p is 0.
    """
    turn = TURN if rotate else 0.0
    draw_B4 = 2 * torch.rand(len(like), 4, device=like.device, dtype=like.dtype) - 1
    dx, dy, p, k = draw_B4.unbind(1)
    return torch.stack([SHIFT * dx, SHIFT * dy, turn * p, (math.log(SCALE) * k).exp()], 1)


def transform_map(x_BCHW: Tensor, similarity_B4: Tensor) -> Tensor:
    """The map (Tx)(y) = x(T^-1 y), T^-1 y = R_-p (y - d) / k, bilinear between cell centres, 0 outside, in the dtype of x.

    In map coordinates, [-1, 1] both ways, as the rectangle: on a map that is not square a turn is none of the pixels.
    """
    with torch.autocast(x_BCHW.device.type, enabled=False):
        dx, dy, p, k = similarity_B4.unbind(1)
        cos, sin = p.cos() / k, p.sin() / k
        inverse_B23 = torch.stack([cos, sin, -cos * dx - sin * dy, -sin, cos, sin * dx - cos * dy], 1).unflatten(1, (2, 3))
        grid_BHW2 = F.affine_grid(inverse_B23, list(x_BCHW.shape), align_corners=False)
        moved_BCHW = F.grid_sample(x_BCHW.to(grid_BHW2.dtype), grid_BHW2, align_corners=False)  # a half-precision grid would be coarse
        return moved_BCHW.to(x_BCHW.dtype)


def transform_rectangle(rectangle_B5: Tensor, similarity_B4: Tensor) -> Tensor:
    """T of a rectangle: centre k R_p c + d, widths k w and k h, angle theta + p."""
    cx, cy, w, h, theta = rectangle_B5.unbind(1)
    dx, dy, p, k = similarity_B4.unbind(1)
    cos, sin = k * p.cos(), k * p.sin()
    return torch.stack([cos * cx - sin * cy + dx, sin * cx + cos * cy + dy, k * w, k * h, theta + p], 1)


def equivariance_loss(found_B5: Tensor, rectangle_B5: Tensor, similarity_B4: Tensor) -> Tensor:
    """Batch mean of |c(Tx) - (k R_p c(x) + d)|^2 + |size(Tx) - k size(x)|^2 + 1 - cos(2 (theta(Tx) - theta(x) - p)); `found` is of Tx.

    A rectangle is compared as it is written: (w, h, theta) and (h, w, theta + pi/2), which look the same, are told apart.
    """
    gap_B5 = found_B5 - transform_rectangle(rectangle_B5, similarity_B4)
    return (gap_B5[:, :4].square().sum(1) + 1 - (2 * gap_B5[:, 4]).cos()).mean()
