"""Spread loss of capsule networks: a squared margin between the activation of the class and those of all others."""
# B batch, K classes

import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from attnlab.network import Output


class SpreadLoss(nn.Module):
    """mean over the batch of sum_{j != y} max(0, m - (a_y - a_j))^2, a = activation(z) (EM routing: Hinton et al., ICLR 2018).

    The margin grows over training as in the code of Quaternion Capsule Networks (Ozcan et al., ICPR 2020):
        m = low + (high - low) * sigmoid(min(10, 14 progress - 4))         from .21 to .99 with the defaults
    There m follows the number of steps, .2 + .79 sigmoid(min(10, t / 50000 - 4)); taking 14 times the part of training done instead
    is our reading: 10 is reached at its end. In evaluation, where there is no progress, m is `high`.
    activation: sigmoid, the last one of capsule networks; softmax; or none. Predictions are argmax_k z_k.
    low, high: 0 <= low <= high. ValueError: otherwise, and for soft labels (no mixup, no cutmix).
    Returns {"spread": scalar}, in fp32 or better.
    """

    soft_targets = False
    needs_fc = False
    takes_copies = False

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        low: float = 0.2,
        high: float = 0.99,
        activation: Literal["sigmoid", "softmax", "none"] = "sigmoid",
    ):
        super().__init__()
        if not 0 <= low <= high < math.inf:
            raise ValueError(f"low and high must be 0 <= low <= high, got {low} and {high}")
        if activation not in ("sigmoid", "softmax", "none"):
            raise ValueError(f"activation must be sigmoid, softmax or none, got {activation!r}")
        self.low, self.high, self.activation = low, high, activation

    def margin(self, progress: Tensor) -> Tensor:
        """m at a part of training in [0, 1]."""
        return self.low + (self.high - self.low) * torch.sigmoid((14 * progress - 4).clamp_max(10))

    def forward(self, out: "Output", y: Tensor, progress: Tensor | None = None) -> dict[str, Tensor]:
        if y.ndim != 1 or y.is_floating_point():
            raise ValueError("spread needs class numbers as labels: it does not go with mixup, cutmix or other soft labels")
        with torch.autocast(y.device.type, enabled=False):
            z_BK = out.logits.to(torch.promote_types(out.logits.dtype, torch.float32))
            a_BK = {"sigmoid": torch.sigmoid, "softmax": lambda z: z.softmax(1), "none": lambda z: z}[self.activation](z_BK)
            margin = self.high if progress is None else self.margin(progress)
            own_B1 = y[:, None]
            hinge_BK = (margin - (a_BK.gather(1, own_B1) - a_BK)).clamp_min(0) ** 2
            others_BK = own_B1 != torch.arange(z_BK.shape[1], device=y.device)
            return {"spread": torch.where(others_BK, hinge_BK, 0.0).sum(1).mean()}
