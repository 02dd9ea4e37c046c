"""Binary cross-entropy of every class by itself, in the place of softmax."""
# B batch, K classes

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from attnlab.network import Output


class SigmoidLoss(nn.Module):
    """-sum_k [ q_k log s(z_k) + (1 - q_k) log(1 - s(z_k)) ], s the sigmoid, q one-hot; the mean over the batch.

    It drops the constraint that the probabilities of the classes sum to one, whose part in adversarial examples is examined in "Verifying
    the Causes of Adversarial Examples" (Li et al., ICPR 2020); how the authors weigh the classes we do not know, so the sum is our reading.
    reduction: over the classes, "sum" as above, or "mean", which divides by K. probabilities: "softmax" takes p = softmax(z) in the place
    of s(z): with "mean" what the authors of manifold mixup train (arXiv 1806.05236, their code); logarithms end at -100, as torch's do.
    Predictions are argmax_k z_k. The metrics NLL and ECE take softmax(z), as for every loss here.
    Labels are class numbers (B,), probabilities (B, K) (mixup, cutmix), or several classes an image, (B, K) of 0 and 1.
    ValueError: an unknown option.
    Returns {"bce": scalar}, in fp32 or better.
    """

    soft_targets = True
    needs_fc = False
    takes_copies = False
    takes_label_sets = True

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        reduction: Literal["sum", "mean"] = "sum",
        probabilities: Literal["sigmoid", "softmax"] = "sigmoid",
    ):
        super().__init__()
        if reduction not in ("sum", "mean"):
            raise ValueError(f"reduction must be sum or mean, got {reduction!r}")
        if probabilities not in ("sigmoid", "softmax"):
            raise ValueError(f"probabilities must be sigmoid or softmax, got {probabilities!r}")
        self.reduction, self.probabilities = reduction, probabilities

    def forward(self, out: "Output", y: Tensor) -> dict[str, Tensor]:
        with torch.autocast(y.device.type, enabled=False):
            z_BK = out.logits.to(torch.promote_types(out.logits.dtype, torch.float32))
            classes = torch.arange(z_BK.shape[1], device=y.device)
            q_BK = (y if y.is_floating_point() else y[:, None] == classes).to(z_BK.dtype)
            if self.probabilities == "softmax":
                loss_B = F.binary_cross_entropy(z_BK.softmax(1), q_BK, reduction="none").sum(1)
            else:
                loss_B = F.binary_cross_entropy_with_logits(z_BK, q_BK, reduction="none").sum(1)
            return {"bce": loss_B.mean() if self.reduction == "sum" else loss_B.mean() / z_BK.shape[1]}
