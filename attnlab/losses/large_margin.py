"""Large-margin discriminative loss (2405.18499).   Shapes: B batch, K classes, D features."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from attnlab.network import Output


class AllReduceSum(torch.autograd.Function):
    """Sum over ranks whose gradient is summed over ranks too (torch.distributed.nn's own is deprecated and does not trace)."""

    @staticmethod
    def forward(ctx, x):
        x = x.clone()
        distributed.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx, grad):
        grad = grad.clone()
        distributed.all_reduce(grad)
        return grad


class LargeMarginLoss(nn.Module):
    """Cross-entropy plus compact classes that keep a distance from the decision boundaries (Nguyen et al., arXiv 2405.18499).

    f (B, D) are the features before the final Linear (W, b). Over the classes c present in the batch, with mhat_c the batch mean of
    class c and m_c = momentum * (stored mean) + (1 - momentum) * mhat_c (= mhat_c the first time c is seen):

    - ``ce``       cross-entropy(logits, y)
    - ``compact``  weight * alpha * mean_c mean_{x in c} [ |f(x) - m_c| - delta_var ]_+^2
    - ``margin``   weight * beta  * mean_c max_{i != c} [ delta_dist + (z_i - z_c) / |w_c - w_i| ]_+,   z = W mhat_c + b
    - ``norm``     weight * gamma * mean_c |m_c|

    The loss is their sum. The fraction is the signed distance of the class mean to the boundary between c and i (negative on the right
    side); it uses the mean of this batch alone, the other two the momentum mean ("partial momentum updating"). The stored means are
    constants: through m_c the features receive 1 - momentum of the gradient. The final weight receives gradient through z and |w_c - w_i|.
    ``delta_var``, ``delta_dist`` are distances in feature space; the authors' CIFAR-10 script has a bottleneck of 30 and delta_dist = 6.
    With copies of the images (noisy_copies; v3 of the paper) x in ``compact`` runs over images and copies; all means, and the other terms,
    are those of the images alone.

    Buffers ``means (K, D)`` and ``seen (K,)`` change in training mode only; in eval mode the same terms are computed from them. An image
    whose features are not all finite enters no mean (ours); the loss of its batch is nan.

    Several ranks (training mode): class sums and counts are summed over ranks, with gradient, so means and buffers are those of the global
    batch and equal everywhere, and the gradient that DDP averages is exactly the gradient of the global batch's loss. ``margin`` and
    ``norm`` are the global values; ``ce`` and ``compact`` are this rank's share, whose mean over ranks is the global value (``ce``: where
    ranks hold equally many images). All ranks must call it the same number of times. In eval mode nothing is exchanged.

    ValueError: a radius or weight below 0, momentum outside [0, 1], soft labels (so no mixup, no cutmix), features not ``dim`` wide.
    Differs from the authors' code in: classes are not looped over; two classes with identical weights have no boundary and are left out
    (there: NaN); where two rivals tie exactly for the maximum, one receives the gradient (there: each a part).
    """

    soft_targets = False
    needs_fc = True
    takes_copies = True

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        delta_var: float = 0.5,
        delta_dist: float = 1.5,
        alpha: float = 1.0,
        beta: float = 1.0,
        gamma: float = 0.001,
        momentum: float = 0.99,
        weight: float = 1.0,
    ):
        super().__init__()
        options = {"delta_var": delta_var, "delta_dist": delta_dist, "alpha": alpha, "beta": beta, "gamma": gamma, "weight": weight}
        for name, value in options.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be at least 0 and finite, got {value}")
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum must be in [0, 1] (0: batch means only), got {momentum}")
        self.delta_var, self.delta_dist, self.momentum = delta_var, delta_dist, momentum
        self.compact_weight, self.margin_weight, self.norm_weight = weight * alpha, weight * beta, weight * gamma
        self.register_buffer("means", torch.zeros(num_classes, dim))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    def forward(self, out: "Output", y: Tensor) -> dict[str, Tensor]:
        num_classes, dim = self.means.shape
        if y.ndim != 1 or y.is_floating_point():
            raise ValueError("large_margin needs class numbers as labels: it does not go with mixup, cutmix or other soft labels")
        if out.features is None or out.features.shape[1:] != (dim,):
            got = "no place `features`" if out.features is None else f"features of shape {tuple(out.features.shape[1:])}"
            raise ValueError(f"large_margin was built for {dim} features before the final Linear; the network has {got}")
        with torch.autocast(y.device.type, enabled=False):
            dtype = torch.promote_types(out.features.dtype, torch.float32)
            f_BD, w_KD = out.features.to(dtype), out.fc.weight.to(dtype)

            # One matrix product instead of a scatter: deterministic on every device (TF32, where it is on, rounds the means here).
            # The last column counts.
            # An image with a feature that is inf or nan is in no mean: 0 * nan would put it into that of every class, and stay there.
            finite_B1 = f_BD.isfinite().all(1, keepdim=True)
            onehot_BK = ((y[:, None] == torch.arange(num_classes, device=y.device)) & finite_B1).to(dtype)
            sums_KE = onehot_BK.T @ torch.cat([torch.where(finite_B1, f_BD, 0.0), f_BD.new_ones(len(f_BD), 1)], dim=1)
            ranks = 1
            if self.training and distributed.is_available() and distributed.is_initialized():
                ranks = distributed.get_world_size()
                sums_KE = AllReduceSum.apply(sums_KE)
            count_K = sums_KE[:, dim].detach()
            present_K = count_K > 0
            count_K = count_K.clamp_min(1)
            share_K = present_K.to(dtype) / present_K.sum().clamp_min(1)  # a class's part in mean_c; 0 where absent
            current_KD = sums_KE[:, :dim] / count_K[:, None]

            # A copy of the state before it is updated. By cat: torch.compile may repeat cheaper reads (clone too) in the backward pass,
            # after the update, and would then use the new values (pytorch#197039).
            state_KE = torch.cat([self.means.to(dtype), self.seen[:, None].to(dtype)], dim=1)
            momentum_K1 = self.momentum * state_KE[:, dim:]  # 0 for a class never seen: its first mean is the batch's
            means_KD = torch.lerp(current_KD, state_KE[:, :dim], momentum_K1)
            if self.training:
                self.means.copy_(torch.where(present_K[:, None], means_KD.detach(), self.means))
                self.seen.logical_or_(present_K)

            # vector_norm has gradient 0 at 0. F.embedding, not indexing: its backward is deterministic and cheap.
            # R rows: the images, and n copies of each.
            f_RD = f_BD if out.copies is None else torch.cat([f_BD, out.copies.features.to(dtype)])
            num_views = len(f_RD) // len(y)
            y_R = torch.cat([y] * num_views) if num_views > 1 else y
            radius_R = torch.linalg.vector_norm(f_RD - F.embedding(y_R, means_KD), dim=1)
            hinge_R = (radius_R - self.delta_var).clamp_min(0) ** 2
            compact = (hinge_R * (share_K / count_K)[y_R]).sum() * (ranks / num_views)  # DDP averages over ranks what must be summed

            # The maximum passes gradient to one rival per class alone: find it among K x K pairs without gradient, then measure that pair.
            # Not through the Gram matrix: the gap of near-equal weights would drown in rounding. Gap 0 (the class itself) is no rival.
            bias_K = w_KD.new_zeros(num_classes) if out.fc.bias is None else out.fc.bias.to(dtype)
            with torch.no_grad():
                z_KK = F.linear(current_KD, w_KD, bias_K)
                gap_KK = torch.cdist(w_KD, w_KD, compute_mode="donot_use_mm_for_euclid_dist")
                signed_KK = (z_KK - z_KK.diagonal()[:, None]) / gap_KK
                rival_K = signed_KK.masked_fill(gap_KK == 0, -torch.inf).argmax(dim=1)
            step_KD = F.embedding(rival_K, w_KD) - w_KD
            gap_K = torch.linalg.vector_norm(step_KD, dim=1)
            has_rival_K = gap_K > 0  # masked before the division, so that no NaN reaches the gradient
            signed_K = ((step_KD * current_KD).sum(1) + bias_K[rival_K] - bias_K) / torch.where(has_rival_K, gap_K, 1.0)
            margin_K = torch.where(has_rival_K, (self.delta_dist + signed_K).clamp_min(0), 0.0)

            return {
                "ce": F.cross_entropy(out.logits.to(dtype), y),
                "compact": self.compact_weight * compact,
                "margin": self.margin_weight * (margin_K * share_K).sum(),
                "norm": self.norm_weight * (torch.linalg.vector_norm(means_KD, dim=1) * share_K).sum(),
            }
