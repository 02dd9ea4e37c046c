"""DropBlock: drop contiguous squares of a feature map."""
# B batch, C channels, H height, W width, h/w height and width of the positions a whole block fits at

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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

    Shapes: x (B, C, H, W) -> same, same dtype and memory format. Raises ValueError for a drop, block or shape out of range.

    Differs from the paper in: drop is constant, where the paper raises it linearly from 0 over training (a module does not know how
    long the training is). Why not a library's: timm 1.0 seeds blocks over the whole map at the rate meant for the inner positions
    (drop=0.1, block=7 zeroes 55% of an 8 x 8 map), torchvision refuses even blocks, hence 4 x 4 and 2 x 2 maps, and sums the mask in the
    map's dtype (infinite in fp16, which zeroes the map).
    """

    def __init__(self, shape: tuple[int, ...], *, drop: float = 0.1, block: int = 7, per_channel: bool = True):
        super().__init__()
        if len(shape) != 3:
            raise ValueError(f"dropblock needs a (C, H, W) place, got shape {tuple(shape)}; for vectors use dropout")
        if not 0 <= drop < 1:
            raise ValueError(f"drop must be in [0, 1), got {drop}")
        if block < 1:
            raise ValueError(f"block must be at least 1, got {block}")
        self.drop = drop
        self.block = block
        self.per_channel = per_channel

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if not self.training or self.drop == 0:
            return x_BCHW
        B, C, H, W = x_BCHW.shape
        bh, bw = min(self.block, H), min(self.block, W)
        h, w = H - bh + 1, W - bw + 1
        gamma = self.drop * H * W / (bh * bw * h * w)  # <= drop, because b (H - b + 1) >= H
        with torch.no_grad():
            channels_last = x_BCHW.is_contiguous(memory_format=torch.channels_last)
            seeds = torch.empty(
                (B, C if self.per_channel else 1, h, w),
                dtype=x_BCHW.dtype,
                device=x_BCHW.device,
                memory_format=torch.channels_last if channels_last else torch.contiguous_format,
            ).bernoulli_(gamma)
            # A seed is its block's top left corner; padding by b - 1 makes the pooled map H x W for odd and even blocks alike.
            dropped = F.max_pool2d(F.pad(seeds, (bw - 1, bw - 1, bh - 1, bh - 1)), (bh, bw), stride=1)
            # counted in fp32 or better: half precision overflows
            kept = 1 - dropped.mean(dtype=torch.promote_types(x_BCHW.dtype, torch.float32))
            mask = (1 - dropped) * torch.where(kept > 0, 1 / kept, 0.0).to(x_BCHW.dtype)
        return x_BCHW * mask

    def extra_repr(self) -> str:
        return f"drop={self.drop}, block={self.block}, per_channel={self.per_channel}"
