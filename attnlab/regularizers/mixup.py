"""Mixup: train on blends of two images and of their labels."""
# B batch, K classes

import torch
from torch import Tensor, nn


class Mixup(nn.Module):
    """Blend every sample with a partner (Zhang et al., arXiv 1710.09412).

        lam ~ Beta(alpha, alpha), one a batch;  p a random permutation
        x' = lam x + (1 - lam) x[p],   t' = lam t + (1 - lam) t[p];   unchanged in eval and where there are no labels

    Place it after `input` with `reads: [target]` and `writes: [target]`. The loss must accept soft targets; with cross-entropy, which
    is linear in the target, it equals the authors' `lam CE(y) + (1 - lam) CE(y[p])`.

    Args:
        shape: the place's shape without batch; any (after a hidden layer this is manifold mixup), and not needed.
        num_classes: K, filled in by the placement.
        alpha: > 0; the paper takes 1 on CIFAR and 0.2 to 0.4 on ImageNet. Small: mostly one of the two images.

    Shapes: x (B, ...), target (B,) int64, (B, K) soft or None -> x' as x, t' (B, K) float32. Soft targets of an earlier mixer are blended.
    Raises ValueError for an alpha or num_classes out of range, or soft targets of another K.
    Differs from the paper in: nothing known; lam is rounded to x's dtype and the labels use the rounded one.
    """

    takes_label_sets = True

    def __init__(self, shape: tuple[int, ...], *, num_classes: int, alpha: float = 1.0):
        super().__init__()
        if not alpha > 0:
            raise ValueError(f"alpha must be above 0, got {alpha}")
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes
        self.alpha = alpha

    def forward(self, x: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if not self.training or target is None:
            return x, target
        check_labels(x, target)
        partner_B = torch.randperm(x.shape[0], device=x.device)
        lam = draw_beta(self.alpha, x.device).to(x.dtype)
        soft_BK = soft_labels(target, num_classes=self.num_classes)
        return torch.lerp(x[partner_B], x, lam), torch.lerp(soft_BK[partner_B], soft_BK, lam.float())

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, num_classes={self.num_classes}"


def draw_beta(alpha: float, device: torch.device) -> Tensor:
    """One Beta(alpha, alpha) draw, 0-d fp32 on the device."""
    # g / (g + g') of two Gamma draws: the kernel behind torch's own Beta has no shape rule, which tracing needs.
    concentration = torch.full((2,), alpha, device=device)
    gamma = torch.distributions.Gamma(concentration, torch.ones_like(concentration), validate_args=False).sample()
    return gamma[0] / gamma.sum()


def check_labels(x: Tensor, target: Tensor) -> None:
    """ValueError unless there is a label an image."""
    if len(target) != len(x):
        raise ValueError(f"{len(target)} labels for {len(x)} images: name what makes copies of the images after what mixes them")


def soft_labels(target: Tensor, *, num_classes: int) -> Tensor:
    """(B, K) float32 from labels (B,) or soft labels (B, K)."""
    if target.ndim == 1:
        # F.one_hot reads the labels' range on the host
        return (target[:, None] == torch.arange(num_classes, device=target.device)).float()
    if target.ndim != 2 or target.shape[1] != num_classes:
        raise ValueError(f"target must be (B,) labels or (B, {num_classes}) soft labels, got shape {tuple(target.shape)}")
    return target.float()
