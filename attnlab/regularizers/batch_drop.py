"""BatchDrop: drop the same rectangle of the map from every image of a batch."""
# B batch, C channels, H height, W width

import torch
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape
from attnlab.regularizers.boxes import box_mask


class BatchDrop(nn.Module):
    """Zero one random rectangle of the map, the same for the whole batch (BatchDropBlock; Dai et al., arXiv 1811.07130).

        h = round(height H), w = round(width W);   top ~ U{0 .. H - h}, left ~ U{0 .. W - w}, one draw a batch;   identity in eval

    All images lose the same region, so what the network compares between them is the same too; the control for Top DropBlock, which
    chooses each image's rows by their activation. Nothing is rescaled.

    Args:
        shape: (C, H, W) of the place.
        height, width: of the rectangle, as fractions of the map in [0, 1]. The authors' code: 0.33 and 1 (its paper's bands).

    Shapes: x (B, C, H, W) -> same, same dtype and memory format.
    Raises ValueError for fractions out of range or a place without (C, H, W).
    Differs from the authors' code in: the draw comes from PyTorch's generator, on the device, instead of Python's.
    """

    def __init__(self, shape: tuple[int, ...], *, height: float = 0.33, width: float = 1.0) -> None:
        super().__init__()
        check_shape(shape, "CHW", what="batch_drop")
        for name, value in (("height", height), ("width", width)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be a fraction of the map in [0, 1], got {value}")
        self.height, self.width = height, width

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.training:
            return x_BCHW
        H, W = x_BCHW.shape[2:]
        h, w = round(self.height * H), round(self.width * W)
        top = torch.randint(0, H - h + 1, (1,), device=x_BCHW.device)
        left = torch.randint(0, W - w + 1, (1,), device=x_BCHW.device)
        return drop_rectangle(x_BCHW, top, left, height=h, width=w)

    def extra_repr(self) -> str:
        return f"height={self.height}, width={self.width}"


def drop_rectangle(x_BCHW: Tensor, top: Tensor, left: Tensor, *, height: int, width: int) -> Tensor:
    """x with the rectangle whose first row and column are `top` and `left`, (1,) tensors, zeroed in every map."""
    H, W = x_BCHW.shape[2:]
    return x_BCHW * ~box_mask(top, left, top + height, left + width, height=H, width=W)
