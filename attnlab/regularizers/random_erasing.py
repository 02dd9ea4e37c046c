"""Random Erasing: erase a random rectangle of some training images."""
# B batch, C channels, H height, W width, T tries

from typing import Literal

import torch
from torch import Tensor, nn

from attnlab.regularizers.boxes import box_mask, check_image_shape

TRIES = 100  # as in the authors' code; an image none of whose tries fits stays whole


class RandomErasing(nn.Module):
    """Erase, with probability `prob`, a rectangle of random area and aspect ratio (Zhong et al., arXiv 1708.04896).

        area ~ U(min_area, max_area) H W,  r ~ U(ratio, 1/ratio),  h = round(sqrt(area r)),  w = round(sqrt(area / r))
        repeat until h < H and w < W;  the corner uniform over the positions where the rectangle lies inside;  identity in eval

    The authors' loop of up to 100 tries is one draw of (B, 100) candidates, of which each image takes the first that fits: the same
    distribution without a loop. Place it after `input`.

    Args:
        shape: (C, H, W).
        prob: probability of erasing an image, in [0, 1].
        min_area, max_area: bounds of the rectangle's share of the image, 0 < min_area <= max_area <= 1.
        ratio: smallest height / width, in (0, 1]; the largest is its inverse (0.3: 0.3 to 3.3).
        fill: `mean`: zero, the mean colour of normalised images (the paper's RE-M, the released code's way). `noise`: standard normal
            per value, our reading on normalised images of the paper's RE-R (uniform in [0, 255]), which it finds equally good.

    Shapes: x (B, C, H, W) -> same, same dtype and memory format. Raises ValueError for values out of range.

    Differs from the official code in: fill `mean` is 0 in normalised units; the code writes (.4914, ..), the mean in raw units, into the
    normalised image, which looks like an oversight.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        prob: float = 0.5,
        min_area: float = 0.02,
        max_area: float = 0.4,
        ratio: float = 0.3,
        fill: Literal["mean", "noise"] = "mean",
    ):
        super().__init__()
        check_image_shape(shape, name="random_erasing")
        if not 0 <= prob <= 1:
            raise ValueError(f"prob must be in [0, 1], got {prob}")
        if not 0 < min_area <= max_area <= 1:
            raise ValueError(f"areas must obey 0 < min_area <= max_area <= 1, got {min_area} and {max_area}")
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must be in (0, 1], got {ratio}")
        if fill not in ("mean", "noise"):
            raise ValueError(f"fill must be mean or noise, got {fill!r}")
        self.prob = prob
        self.min_area = min_area
        self.max_area = max_area
        self.ratio = ratio
        self.fill = fill

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.training:
            return x_BCHW
        B, _, H, W = x_BCHW.shape
        area_BT, aspect_BT = torch.rand(2, B, TRIES, device=x_BCHW.device).unbind()
        area_BT = (self.min_area + (self.max_area - self.min_area) * area_BT) * (H * W)
        aspect_BT = self.ratio + (1 / self.ratio - self.ratio) * aspect_BT
        h_BT = (area_BT * aspect_BT).sqrt().round()
        w_BT = (area_BT / aspect_BT).sqrt().round()
        fits_BT = (h_BT < H) & (w_BT < W)
        first_B1 = fits_BT.int().argmax(1, keepdim=True)  # argmax gives the first of several maxima
        h_B, w_B, fits_B = (t.gather(1, first_B1)[:, 0] for t in (h_BT, w_BT, fits_BT))
        chance_B, top_B, left_B = torch.rand(3, B, device=x_BCHW.device).unbind()
        top_B = (top_B * (H - h_B + 1)).floor()
        left_B = (left_B * (W - w_B + 1)).floor()
        hole_B1HW = box_mask(top_B, left_B, top_B + h_B, left_B + w_B, height=H, width=W)
        hole_B1HW = hole_B1HW & (fits_B & (chance_B < self.prob))[:, None, None, None]
        return torch.where(hole_B1HW, 0.0 if self.fill == "mean" else torch.randn_like(x_BCHW), x_BCHW)

    def extra_repr(self) -> str:
        return f"prob={self.prob}, area={self.min_area}..{self.max_area}, ratio={self.ratio}, fill={self.fill}"
