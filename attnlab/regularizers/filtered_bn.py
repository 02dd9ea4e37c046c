"""Filtered batch norm: statistics without the outliers."""
# B batch, C channels, H height, W width, D features

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from attnlab.placement.shapes import check_shape
from attnlab.regularizers.norm_host import check_norm, take_over


class _Filtered(_BatchNorm):
    """`FilteredBatchNorm2d` and `1d`: what is said there. whole: one mean and variance for the tensor, not one a channel."""

    def __init__(
        self,
        num_features: int,
        *,
        threshold: float,
        eps: float,
        correction: int,
        momentum: float | None,
        eval_stats: str,
        host: nn.Module | None = None,
        whole: bool = False,
    ) -> None:
        name = "filtered_bn"
        check_norm(host, name=name)
        if not threshold > 0:
            raise ValueError(f"threshold must be above 0, got {threshold}")
        if correction not in (0, 1):
            raise ValueError(f"correction must be 0 or 1, got {correction}")
        if eval_stats not in ("running", "batch"):
            raise ValueError(f"eval_stats must be running or batch, got {eval_stats!r}")
        super().__init__(num_features, eps=eps, momentum=momentum)
        self.threshold, self.correction, self.eval_stats, self.whole = threshold, correction, eval_stats, whole
        take_over(self, host)

    def forward(self, x: Tensor) -> Tensor:
        dims = tuple(range(x.ndim)) if self.whole else (0, *range(2, x.ndim))
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        column = (1, -1, *[1] * (x.ndim - 2))
        with torch.autocast(x.device.type, enabled=False):
            if self.training or self.eval_stats == "batch":
                if x.numel() == self.num_features:
                    raise ValueError(f"filtered_bn needs more than one value a channel in training, got shape {tuple(x.shape)}")
                mean, var, count = filtered_moments(wide, dims, threshold=self.threshold, eps=self.eps, correction=self.correction)
                if self.training:
                    self._update(mean.detach(), var.detach() * (count - self.correction) / (count - 1).clamp(min=1))
            else:
                mean, var = self.running_mean.view(column), self.running_var.view(column)
            scale = self.weight.view(column) * torch.rsqrt(var + self.eps)
            return torch.addcmul(self.bias.view(column), wide - mean, scale).to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, var: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        new = 1 / self.num_batches_tracked.to(mean.dtype) if self.momentum is None else self.momentum  # None: the mean of all, as torch
        for running, now in ((self.running_mean, mean), (self.running_var, var)):
            running.add_((now.flatten() - running) * new)

    def _check_input_dim(self, x: Tensor) -> None:
        pass

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, threshold={self.threshold}, correction={self.correction}, eval_stats={self.eval_stats}"


class FilteredBatchNorm2d(_Filtered):
    """Batch norm whose mean and variance leave out a channel's outliers (Horvath and Al-Afandi, arXiv 2010.08251).

        kept:  |x - mean x| / sqrt(var x + eps) < threshold,   mean and (unbiased) var over (B, H, W)
        m = mean of the kept,   v = sum of (kept - m)^2 / (n - correction);   y = gamma (x - m) / sqrt(v + eps) + beta   for ALL x

    gamma = 1, beta = 0 at first; the gradient passes through m and v, not through the choice. threshold = inf is batch norm.

    Stands in the place of a norm (`how: replace`), with its weights and statistics under the same names; or after a place, as a new norm.

    Args:
        shape: (C, H, W). host: the norm that is replaced; both filled in by the placement.
        threshold, eps, correction: the authors' class for convolutions has 4, 1e-10, 0; their class with running statistics 1, 1e-5, 1.
        momentum: weight of the newest batch in the running statistics; None: the mean of all batches.
        eval_stats: `running`: those of training, as the authors' second class. `batch`: the test batch's own, as their first class, which
            keeps none: an image's output then depends on the other images of its batch.

    Shapes: x (B, C, H, W) -> same, same dtype; statistics in fp32 or better. Under DDP every process has those of its own shard.
    Raises ValueError for values out of range, a host that is no norm or holds an activation, one value a channel in training.

    Differs from the authors' code in: running statistics also for the first class (variance unbiased, as batch norm's); where no value
    passes, m = 0 and v = 0 instead of 0/0.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        threshold: float = 4.0,
        eps: float = 1e-10,
        correction: int = 0,
        momentum: float | None = 0.1,
        eval_stats: Literal["running", "batch"] = "running",
        host: nn.Module | None = None,
    ) -> None:
        check_shape(shape, "CHW", what="filtered_bn", hint="for vectors there is FilteredBatchNorm1d")
        options = {"threshold": threshold, "eps": eps, "correction": correction, "momentum": momentum, "eval_stats": eval_stats}
        super().__init__(shape[0], host=host, **options)


class FilteredBatchNorm1d(_Filtered):
    """`FilteredBatchNorm2d` for vectors, x (B, D); with `per="tensor"` the authors' class: one mean, variance, gamma and beta for all
    features together, correction 1. The default, one of each a feature, is what the paper's batch norm is."""

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        threshold: float = 4.0,
        eps: float = 1e-10,
        correction: int = 0,
        momentum: float | None = 0.1,
        eval_stats: Literal["running", "batch"] = "running",
        per: Literal["feature", "tensor"] = "feature",
        host: nn.Module | None = None,
    ) -> None:
        check_shape(shape, "D", what="FilteredBatchNorm1d")
        if per not in ("feature", "tensor"):
            raise ValueError(f"per must be feature or tensor, got {per!r}")
        options = {"threshold": threshold, "eps": eps, "correction": correction, "momentum": momentum, "eval_stats": eval_stats}
        super().__init__(1 if per == "tensor" else shape[0], host=host, whole=per == "tensor", **options)


def filtered_moments(x: Tensor, dims: tuple[int, ...], *, threshold: float, eps: float, correction: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and variance over `dims` of the values within `threshold` deviations of their mean, and how many they are; dims kept as 1."""
    with torch.no_grad():
        var, mean = torch.var_mean(x, dims, keepdim=True)
        kept = (x - mean).abs() < threshold * (var + eps).sqrt()
        count = kept.sum(dims, keepdim=True).to(x.dtype)
    mean = torch.where(kept, x, 0.0).sum(dims, keepdim=True) / count.clamp(min=1)
    squares = torch.where(kept, x - mean, 0.0).square().sum(dims, keepdim=True)
    return mean, squares / (count - correction).clamp(min=1), count
