"""Batch norm with skewness reduction: our reading, a signed power after the normalisation."""
# B batch, C channels, H height, W width

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape
from attnlab.regularizers.norm_host import check_norm, take_over


class SkewnessReducedBatchNorm2d(nn.BatchNorm2d):
    """Our reading of BNSR (Ding, Martin and Li, "Improving Batch Normalization with Skewness Reduction for Deep Neural Networks").

        u = (x - m) / sqrt(v + eps),   phi(u) = u (u^2 + smooth)^((power - 1) / 2),   y = gamma phi(u) + beta

    phi is the signed power sign(u) |u|^power, made smooth at 0, where its slope would be infinite for power < 1. power = 1 is batch norm.
    m and v are the batch's in training, running ones in eval.

    Established (abstract): after the normalisation a transform reduces the skewness too. Not established: the transform; it is remembered
    as a signed power with an exponent just above 1, and measured here that exponents above 1 raise the skewness of skewed samples and those
    below 1 lower it. So power is 0.9, and what it does is measured: `statistics` has the skewness before and after, the mean over the
    channels of |E[(z - E z)^3]| / E[(z - E z)^2]^1.5.

    Args:
        shape: (C, H, W). host: the norm that is replaced, whose weights and statistics stay under their names; both filled in.
        power: > 0. smooth: > 0, on the scale of u^2.
        eps, momentum: as of nn.BatchNorm2d.
        measure: log the two skewnesses in training (costs some passes over the map).

    Shapes: x (B, C, H, W) -> same, same dtype. Raises ValueError for values out of range or a host that is no norm or holds an activation.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        power: float = 0.9,
        smooth: float = 1e-4,
        eps: float = 1e-5,
        momentum: float = 0.1,
        measure: bool = True,
        host: nn.Module | None = None,
    ) -> None:
        check_norm(host, name="bnsr")
        check_shape(shape, "CHW", what="bnsr")
        for name, value in (("power", power), ("smooth", smooth), ("eps", eps)):
            if not value > 0:
                raise ValueError(f"{name} must be above 0, got {value}")
        super().__init__(shape[0], eps=eps, momentum=momentum)
        take_over(self, host)
        self.power, self.smooth, self.measure = power, smooth, measure
        self.skewness: tuple[Tensor, Tensor] | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        rate = self.momentum
        if self.training:
            self.num_batches_tracked.add_(1)
            rate = 1 / self.num_batches_tracked.item() if rate is None else rate  # None: as torch, while SWA takes its statistics
        u_BCHW = F.batch_norm(x_BCHW, self.running_mean, self.running_var, None, None, self.training, rate, self.eps)
        wide = torch.promote_types(u_BCHW.dtype, torch.float32)
        z_BCHW = signed_power(u_BCHW.to(wide), self.power, smooth=self.smooth)
        if self.training and self.measure:
            self.skewness = skewness(u_BCHW.detach().to(wide)), skewness(z_BCHW.detach())
        y_BCHW = torch.addcmul(self.bias.view(-1, 1, 1), z_BCHW, self.weight.view(-1, 1, 1))
        return y_BCHW.to(u_BCHW.dtype)

    @property
    def statistics(self) -> dict[str, Tensor]:
        return {} if self.skewness is None else dict(zip(("skewness_before", "skewness_after"), self.skewness))

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, power={self.power}, smooth={self.smooth}"


def signed_power(u: Tensor, power: float, *, smooth: float) -> Tensor:
    """u (u^2 + smooth)^((power - 1) / 2): sign(u) |u|^power but near 0. u itself for power 1."""
    return u if power == 1 else u * (u.square() + smooth).pow((power - 1) / 2)


def skewness(z_BCHW: Tensor) -> Tensor:
    """Mean over the channels of the absolute skewness over batch and positions, 0-d."""
    centred = z_BCHW - z_BCHW.mean((0, 2, 3), keepdim=True)
    square = centred.square()
    variance_C = square.mean((0, 2, 3)).clamp(min=1e-12)
    return ((square * centred).mean((0, 2, 3)).abs() / variance_C.pow(1.5)).mean()
