"""Dual-attention guided DropBlock: our reading of a channel and a spatial drop that follow attention."""
# B batch, C channels, H height, W width

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape
from attnlab.regularizers.adl import below


class DualAttentionDropBlock(nn.Module):
    """Our reading of DGDM (Yin et al., "Dual-Attention Guided Dropblock Module", arXiv 2003.04719): weakly supervised localisation.

        channels:  a = GAP(x);  keep_c = 1 for the ceil(top C) largest a_c, else Bernoulli(low);   x <- x keep C / sum(keep)
        space:     A = mean_c x;  with probability drop, one draw a batch:  x <- x (1 - blocks(A >= high max A)) 1[A >= floor max A]
                   else:  x <- x sigmoid(A)

    blocks(): a square of side `block` around every position named, each with probability `seed`. In eval y = x; no parameters.

    Established (abstract): channels are ranked by attention, the top ones are kept and some low ones too; contiguous regions of the most
    discriminative area are erased; foreground is told from background. Ours: every constant, the Bernoulli draw, the background rule, and
    ADL's choice between an erasing and a stressing branch (`attnlab.regularizers.adl`, of whose group this is). A public port sorts the
    channel attention and never sorts it back; it is not followed.

    Args:
        shape: (C, H, W) of the place.
        top: fraction of the channels that are always kept, in (0, 1]. low: probability that another channel is kept, in [0, 1].
        drop: probability of the erasing branch, in [0, 1].
        high: in [0, 1], of the maximum: what lies above is discriminative and erased. floor: in [0, 1]: what lies below is background.
        block: side of an erased square, odd, in units of the map. seed: probability that a discriminative position is erased.

    Attributes: map: (B, 1, H, W), sigmoid(A) of the last pass; in eval too.
    Shapes: x (B, C, H, W) -> same, same dtype and memory format. Raises ValueError for values out of range or a place without (C, H, W).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        top: float = 0.75,
        low: float = 0.25,
        drop: float = 0.75,
        high: float = 0.8,
        floor: float = 0.1,
        block: int = 3,
        seed: float = 1.0,
    ) -> None:
        super().__init__()
        check_shape(shape, "CHW", what="dgdm")
        for name, value in (("top", top), ("low", low), ("drop", drop), ("high", high), ("floor", floor), ("seed", seed)):
            if not 0 <= value <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {value}")
        if top == 0:
            raise ValueError("top must be above 0: some channels must be left")
        if block < 1 or block % 2 == 0:
            raise ValueError(f"block must be odd and at least 1, got {block}")
        self.num_top = math.ceil(top * shape[0])
        self.low, self.drop, self.high, self.floor, self.block, self.seed = low, drop, high, floor, block, seed
        self.map: Tensor | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.training:
            self.map = x_BCHW.mean(1, keepdim=True).sigmoid()
            return x_BCHW
        x_BCHW = x_BCHW * self.channel_factor(x_BCHW)[:, :, None, None]
        A_B1HW = x_BCHW.mean(1, keepdim=True)
        self.map = importance_B1HW = A_B1HW.sigmoid()
        erases = torch.rand((), device=x_BCHW.device) >= 1 - self.drop
        return x_BCHW * torch.where(erases, self.spatial_mask(A_B1HW), importance_B1HW)

    @torch.no_grad()
    def channel_factor(self, x_BCHW: Tensor) -> Tensor:
        """(B, C): 0, or C over the number of channels kept in this image."""
        rank_BC = x_BCHW.mean((2, 3)).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
        lucky_BC = torch.rand(rank_BC.shape, device=x_BCHW.device) < self.low
        keep_BC = ((rank_BC < self.num_top) | lucky_BC).float()
        return (keep_BC / keep_BC.mean(1, keepdim=True)).to(x_BCHW.dtype)

    @torch.no_grad()
    def spatial_mask(self, A_B1HW: Tensor) -> Tensor:
        """(B, 1, H, W): 0 in blocks around discriminative positions and in the background, else 1."""
        hot_B1HW = ~below(A_B1HW, self.high) & (torch.rand(A_B1HW.shape, device=A_B1HW.device) < self.seed)
        erased_B1HW = F.max_pool2d(hot_B1HW.to(A_B1HW.dtype), self.block, stride=1, padding=self.block // 2)
        return (1 - erased_B1HW) * ~below(A_B1HW, self.floor)

    def extra_repr(self) -> str:
        return f"num_top={self.num_top}, low={self.low}, drop={self.drop}, high={self.high}, floor={self.floor}, block={self.block}"
