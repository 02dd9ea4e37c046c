"""Boxes as masks: what cutout, random erasing and cutmix share."""
# B batch, C channels, H height, W width

import torch
from torch import Tensor

from attnlab.placement.shapes import check_shape


def box_mask(top_B: Tensor, left_B: Tensor, bottom_B: Tensor, right_B: Tensor, *, height: int, width: int) -> Tensor:
    """(B, 1, H, W) bool, true inside each box; bottom and right are exclusive, parts outside the image are clipped."""
    rows_H = torch.arange(height, device=top_B.device)
    columns_W = torch.arange(width, device=top_B.device)
    inside_BH = (rows_H >= top_B[:, None]) & (rows_H < bottom_B[:, None])
    inside_BW = (columns_W >= left_B[:, None]) & (columns_W < right_B[:, None])
    return (inside_BH[:, :, None] & inside_BW[:, None, :])[:, None]


def check_image_shape(shape: tuple[int, ...], *, name: str) -> None:
    """ValueError where a place holds no images."""
    check_shape(shape, "CHW", what=name, hint="put it at input")
