"""Top DropBlock: drop the most active rows of every image's map."""
# B batch, C channels, H height, W width, R rows dropped

import torch
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape


class TopDropBlock(nn.Module):
    """Zero the rows of a map that hold its most active positions (Top-DB-Net; Quispe and Pedrini, arXiv 2010.05435).

        a_ij = sum_c x_cij^2,   score_i = max_j a_ij,   y = x with the round(ratio H) rows of largest score zeroed;   identity in eval

    Every image loses rows of its own, over the full width and all channels; they need not be neighbours. Nothing is rescaled, nothing is
    random. Meant to make the rest of the map speak: the paper has it on a stream of its own in re-identification, beside a global stream
    and a regularising one that sees the map undropped. Here it is the layer alone, at any place.

    Args:
        shape: (C, H, W) of the place.
        ratio: in [0, 1), of the rows dropped; 0.33 in the paper. round is half to even; a map of one row loses nothing.

    Shapes: x (B, C, H, W) -> same, same dtype and memory format. Gradient 0 in dropped rows, 1 elsewhere.
    Raises ValueError for a ratio out of range or a place without (C, H, W).

    Differs from the authors' code in: where round(ratio H) = 0 theirs drops every row (a slice `[-0:]`), here none; the L2 normalisation
    of a before the ranking is left out, as it cannot change the order; equal rows are dropped from the top.
    """

    def __init__(self, shape: tuple[int, ...], *, ratio: float = 0.33) -> None:
        super().__init__()
        check_shape(shape, "CHW", what="top_dropblock")
        if not 0 <= ratio < 1:
            raise ValueError(f"ratio must be in [0, 1), got {ratio}")
        self.ratio = ratio

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.training:
            return x_BCHW
        kept_BH = ~top_rows(x_BCHW.detach(), round(self.ratio * x_BCHW.shape[2]))
        return x_BCHW * kept_BH[:, None, :, None]

    def extra_repr(self) -> str:
        return f"ratio={self.ratio}"


def top_rows(x_BCHW: Tensor, count: int) -> Tensor:
    """(B, H) bool: the `count` rows of each map with the largest sum of squares over channels at one of their positions."""
    wide = torch.promote_types(x_BCHW.dtype, torch.float32)  # squares overflow in fp16
    score_BH = x_BCHW.to(wide).square().sum(1).amax(2)
    rank_BH = score_BH.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return rank_BH < count
