"""MaxDropout: drop the most active units of a map."""
# B batch, C channels, H height, W width, D all but the batch, S samples that share one range (B or 1)

from typing import Literal

import torch
from torch import Tensor, nn


class MaxDropout(nn.Module):
    """Zero the units whose min-max normalised activation exceeds `1 - drop` (Santos et al., arXiv 2007.13723).

        t = (x - min x) / (max x - min x),   y = 0 where t > 1 - drop, else x

    min and max are taken over the whole batch tensor; nothing is rescaled and nothing is random. `drop` is therefore a place in
    the RANGE of activations, not a fraction of units: after a ReLU, drop=0.3 zeroes far below 1% of them. `dropped` says how many.

    Args:
        shape: the place's shape without batch; any, and not needed.
        drop: in [0, 1]; 0 drops nothing, 1 keeps only the units equal to the minimum.
        eval_mode: `off`: identity in eval, as the paper says. `paper_code`: drops in eval too, as the released code does (it builds the
            layer anew in every forward, so `eval()` never reaches it); the published errors may include that, and an image's
            output then depends on the other images of its batch.
        per_sample: take min and max over each sample alone, so that samples do not influence each other (not in the paper).

    Attributes:
        dropped: fraction of units dropped in the last forward that dropped, a 0-d tensor on the device (None before).

    Shapes: x (B, ...) -> y (B, ...), same dtype and memory format. Under DDP every process uses the range of its own shard.
    A constant tensor loses nothing (0/0 in the formula; NaN > t is false in the released code too).
    Raises ValueError for a drop outside [0, 1] or an unknown eval_mode.

    Differs from the official code in: the threshold is compared on the scale of x, `x > max - drop (max - min)`, which saves two passes
    over the map (units within a rounding error of the threshold may fall on its other side); half-precision maps are compared with an
    fp32 threshold. The paper's Algorithm 1 is said to draw the rate at random; the released code does not, and we follow the code.
    """

    def __init__(
        self,
        shape: tuple[int, ...] | None = None,
        *,
        drop: float = 0.3,
        eval_mode: Literal["off", "paper_code"] = "off",
        per_sample: bool = False,
    ):
        super().__init__()
        if not 0 <= drop <= 1:
            raise ValueError(f"drop must be in [0, 1], got {drop}")
        if eval_mode not in ("off", "paper_code"):
            raise ValueError(f"eval_mode must be off or paper_code, got {eval_mode!r}")
        self.drop = drop
        self.eval_mode = eval_mode
        self.per_sample = per_sample
        self.dropped: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self.eval_mode == "off":
            return x
        # aminmax copies a channels_last map into the contiguous layout first (8x slower); the order of the units does not matter here.
        channels_last = x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)
        flat_BD = (x.detach().permute(0, 2, 3, 1) if channels_last else x.detach()).flatten(1)
        low_S, high_S = torch.aminmax(flat_BD, dim=1) if self.per_sample else torch.aminmax(flat_BD)
        # lerp is exact at both ends: drop=0 gives max (nothing is above it), drop=1 gives min, a constant tensor gives the constant.
        wide = torch.promote_types(x.dtype, torch.float32)
        threshold_S = torch.lerp(low_S.to(wide), high_S.to(wide), 1 - self.drop)
        # One dimension per axis, not 0-d: a 0-d fp32 threshold would be rounded to a half-precision x's grid.
        mask = x > threshold_S.view(-1, *[1] * (x.ndim - 1))
        self.dropped = mask.count_nonzero() / mask.numel()
        return torch.where(mask, 0.0, x)  # masked_fill would lose channels_last

    @property
    def statistics(self) -> dict[str, Tensor]:
        return {} if self.dropped is None else {"dropped": self.dropped}

    def extra_repr(self) -> str:
        return f"drop={self.drop}, eval_mode={self.eval_mode}, per_sample={self.per_sample}"
