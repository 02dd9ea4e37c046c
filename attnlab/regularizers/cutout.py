"""Cutout: erase one square of every training image."""
# B batch, C channels, H height, W width

import torch
from torch import Tensor, nn

from attnlab.regularizers.boxes import box_mask, check_image_shape


class Cutout(nn.Module):
    """Zero one square per image, its centre uniform over the pixels (DeVries and Taylor, arXiv 1708.04552).

        (cy, cx) ~ Uniform{0..H-1} x {0..W-1};   y = 0 on rows [cy - l/2, cy + l/2) and columns [cx - l/2, cx + l/2), clipped;
        identity in eval

    Squares may hang over the border, as in the authors' code, so between a quarter and the whole of `length` squared is erased. Place it
    after `input`: images are normalised there, so zero is the mean colour.

    Args:
        shape: (C, H, W).
        length: side of the square in pixels, >= 2; an odd length erases length - 1, as in the authors' code (`length // 2` each way).
            The paper: 16 for CIFAR-10, 8 for CIFAR-100, 20 for SVHN at 32 x 32. Scale it with the image.

    Shapes: x (B, C, H, W) -> same, same dtype and memory format. Raises ValueError for a length below 2 or a place without (C, H, W).
    Differs from the official code in: drawn per batch on the device.
    """

    def __init__(self, shape: tuple[int, ...], *, length: int = 16):
        super().__init__()
        check_image_shape(shape, name="cutout")
        if length < 2:
            raise ValueError(f"length must be at least 2 pixels, got {length}")
        self.length = length

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.training:
            return x_BCHW
        B, _, H, W = x_BCHW.shape
        half = self.length // 2
        cy_B = torch.randint(H, (B,), device=x_BCHW.device)
        cx_B = torch.randint(W, (B,), device=x_BCHW.device)
        hole_B1HW = box_mask(cy_B - half, cx_B - half, cy_B + half, cx_B + half, height=H, width=W)
        return torch.where(hole_B1HW, 0.0, x_BCHW)

    def extra_repr(self) -> str:
        return f"length={self.length}"
