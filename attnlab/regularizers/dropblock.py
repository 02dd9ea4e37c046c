"""DropBlock: drop contiguous squares of a feature map."""
# B batch, C channels, H height, W width, h/w height and width of the positions a whole block fits at

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape


class DropBlock(nn.Module):
    """Zero blocks of each channel's map, scale the rest (Ghiasi et al., arXiv 1810.12890, Algorithm 1).

        gamma = drop / block^2 * H W / ((H - block + 1) (W - block + 1))
        s ~ Bernoulli(gamma) at every position where a WHOLE block fits;  m = 0 on the blocks of the seeds s, 1 elsewhere
        y = x m * count(m) / sum(m);   identity in eval

    Args:
        shape: (C, H, W). The block shrinks to the map where the map is smaller (then a block is a whole channel).
        drop: in [0, 1), about the fraction of units dropped (blocks may overlap, so it is an upper bound of the mean).
        block: side of a block in units of the map, >= 1; 1 is dropout.
        per_channel: every channel draws its own blocks (Algorithm 1: "tends to work better"), else all channels share them.
        schedule: `linear`: drop grows from 0 to its value over training, as in the paper (`progress`, in [0, 1], says how far training is;
            without it drop is constant). `constant`: the same throughout.

    Shapes: x (B, C, H, W) -> same, same dtype and memory format. Raises ValueError for a drop, block or shape out of range.

    Differs from the paper in: nothing known. Why not a library's: timm 1.0 seeds blocks over the whole map at the rate meant for the inner
    positions (drop=0.1, block=7 zeroes 55% of an 8 x 8 map), torchvision refuses even blocks, hence 4 x 4 and 2 x 2 maps, and sums the
    mask in the map's dtype (infinite in fp16, which zeroes the map).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        drop: float = 0.1,
        block: int = 7,
        per_channel: bool = True,
        schedule: Literal["linear", "constant"] = "linear",
    ):
        super().__init__()
        check_shape(shape, "CHW", what="dropblock", hint="for vectors use dropout")
        if not 0 <= drop < 1:
            raise ValueError(f"drop must be in [0, 1), got {drop}")
        if block < 1:
            raise ValueError(f"block must be at least 1, got {block}")
        self.drop = drop
        self.block = block
        self.per_channel = per_channel
        self.schedule = schedule

    def forward(self, x_BCHW: Tensor, progress: Tensor | None = None) -> Tensor:
        if not self.training or self.drop == 0:
            return x_BCHW
        B, C, H, W = x_BCHW.shape
        bh, bw = min(self.block, H), min(self.block, W)
        h, w = H - bh + 1, W - bw + 1
        gamma = self.drop * H * W / (bh * bw * h * w)  # <= drop, because b (H - b + 1) >= H
        with torch.no_grad():
            channels_last = x_BCHW.is_contiguous(memory_format=torch.channels_last)
            constant = progress is None or self.schedule == "constant"
            draws = torch.empty(
                (B, C if self.per_channel else 1, h, w),
                dtype=x_BCHW.dtype if constant else torch.float32,  # a uniform number in half precision is too coarse
                device=x_BCHW.device,
                memory_format=torch.channels_last if channels_last else torch.contiguous_format,
            )
            seeds = draws.bernoulli_(gamma) if constant else (draws.uniform_() < gamma * progress).to(x_BCHW.dtype)
            # A seed is its block's top left corner; padding by b - 1 makes the pooled map H x W for odd and even blocks alike.
            dropped = F.max_pool2d(F.pad(seeds, (bw - 1, bw - 1, bh - 1, bh - 1)), (bh, bw), stride=1)
            # counted in fp32 or better: half precision overflows
            kept = 1 - dropped.mean(dtype=torch.promote_types(x_BCHW.dtype, torch.float32))
            mask = (1 - dropped) * torch.where(kept > 0, 1 / kept, 0.0).to(x_BCHW.dtype)
        return x_BCHW * mask

    def extra_repr(self) -> str:
        return f"drop={self.drop}, block={self.block}, per_channel={self.per_channel}, schedule={self.schedule}"
