"""Cross-entropy of a further classifier inside the network, as a placed module adds it to the loss by its `.penalty`."""
# R rows: B images, or B images and n copies of each, K classes

import torch
import torch.nn.functional as F
from torch import Tensor


def auxiliary_cross_entropy(logits_RK: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy in fp32 or better.

    `target` holds class numbers (B,) or probabilities (B, K) (mixup, cutmix); copies of the images (noisy_copies) have the same labels.
    """
    with torch.autocast(logits_RK.device.type, enabled=False):
        logits_RK = logits_RK.to(torch.promote_types(logits_RK.dtype, torch.float32))
        target = target.to(logits_RK.dtype) if target.is_floating_point() else target
        if len(logits_RK) > len(target):
            target = torch.cat([target] * (len(logits_RK) // len(target)))
        return F.cross_entropy(logits_RK, target)
