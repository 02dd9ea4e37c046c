"""Softmax cross-entropy.   Shapes: B batch, K classes."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from attnlab.network import Output


class CrossEntropy(nn.Module):
    """Mean of ``-sum_k q_k log softmax(z)_k`` over the batch, in fp32 or better.

    ``y`` is class numbers ``(B,)`` or probabilities ``(B, K)`` (mixup, cutmix). ``label_smoothing`` s in [0, 1] replaces q by
    ``(1 - s) q + s / K`` (1512.00567). ``weight`` multiplies the loss, beside other terms. Copies of the images (noisy_copies) count like
    images, with the same ``y``. Images with y = -1, unlabelled, count for nothing (no image labelled: NaN).
    ValueError: s outside [0, 1]; weight below 0. Returns ``{"ce": scalar}``.
    """

    soft_targets = True
    needs_fc = False
    takes_copies = True
    takes_unlabelled = True

    def __init__(self, num_classes: int, dim: int, *, label_smoothing: float = 0.0, weight: float = 1.0):
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}")
        if not weight >= 0:
            raise ValueError(f"weight must be 0 or more, got {weight}")
        self.label_smoothing, self.weight = label_smoothing, weight

    def forward(self, out: "Output", y: Tensor) -> dict[str, Tensor]:
        logits_BK = out.logits if out.copies is None else torch.cat([out.logits, out.copies.logits])
        logits_BK = logits_BK.to(torch.promote_types(logits_BK.dtype, torch.float32))
        target = y.to(logits_BK.dtype) if y.is_floating_point() else y
        if len(logits_BK) > len(y):
            target = torch.cat([target] * (len(logits_BK) // len(y)))
        loss = F.cross_entropy(logits_BK, target, ignore_index=-1, label_smoothing=self.label_smoothing)
        return {"ce": loss if self.weight == 1 else self.weight * loss}
