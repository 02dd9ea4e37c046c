"""Attention-based dropout: now hide the most discriminative region of every map, now stress it."""
# B batch, C channels, H height, W width

import torch
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape


class AttentionDropout(nn.Module):
    """Multiply a map by its own attention, or erase its peak, one draw a batch (ADL; Choe and Shim, arXiv 1908.10028).

        A = mean_c x;   importance = sigmoid(A);   kept = 1[A < threshold max A];   y = x kept with probability drop, else x importance

    max is over each image's map. In eval y = x. The gradient passes through A in the importance branch, not through the mask.

    Args:
        shape: (C, H, W) of the place; the paper has several in the later half of the network.
        drop: probability of the erasing branch, in [0, 1]. The authors' runs: 0.75 (they name 0.25, the probability to keep).
        threshold: fraction of the maximum above which a position is erased, in [0, 1]. The authors' VGG run: 0.8.

    Attributes:
        map: (B, 1, H, W), the importance of the last pass; in eval too.

    Shapes: x (B, C, H, W) -> same, same dtype and memory format. A map without a positive value loses nothing in the erasing branch.
    Raises ValueError for values out of range or a place without (C, H, W). Differs from the authors' code in: nothing known.
    """

    def __init__(self, shape: tuple[int, ...], *, drop: float = 0.75, threshold: float = 0.8) -> None:
        super().__init__()
        check_shape(shape, "CHW", what="adl")
        for name, value in (("drop", drop), ("threshold", threshold)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        self.drop, self.threshold = drop, threshold
        self.map: Tensor | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        A_B1HW = x_BCHW.mean(1, keepdim=True)
        self.map = importance_B1HW = A_B1HW.sigmoid()
        if not self.training:
            return x_BCHW
        erases = torch.rand((), device=x_BCHW.device) >= 1 - self.drop
        kept_B1HW = below(A_B1HW, self.threshold).to(x_BCHW.dtype)
        return x_BCHW * torch.where(erases, kept_B1HW, importance_B1HW)

    def extra_repr(self) -> str:
        return f"drop={self.drop}, threshold={self.threshold}"


def below(A_B1HW: Tensor, threshold: float) -> Tensor:
    """(B, 1, H, W) bool: where each map is under `threshold` times its maximum."""
    return A_B1HW.lt(threshold * A_B1HW.amax((2, 3), keepdim=True))
