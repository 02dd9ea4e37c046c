"""Online subclass distillation: an image's logits follow those of its nearest neighbours of the same class.   B batch, K classes."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attnlab.distillation.feature_term import full_precision

if TYPE_CHECKING:
    from attnlab.network import Output


def oskd(logits_BK: Tensor, target_B: Tensor, *, neighbours: int) -> Tensor:
    """Mean over images of ``|z_b - mean_{j in N(b)} z_j|^2``, 0-d. N(b): the `neighbours` nearest images of b's class in the batch, by
    their logits, without b; they have no gradient. An image with no other of its class counts 0; one with fewer has those."""
    fixed_BK = logits_BK.detach()
    distance_BB = (fixed_BK[:, None] - fixed_BK).square().sum(2)
    other_BB = (target_B[:, None] == target_B) & ~torch.eye(len(target_B), dtype=torch.bool, device=target_B.device)
    distance_BB = torch.where(other_BB, distance_BB, torch.inf)
    nearest_Bn, index_Bn = distance_BB.topk(min(neighbours, len(target_B)), largest=False)
    weight_Bn = nearest_Bn.isfinite().to(logits_BK.dtype)
    count_B1 = weight_Bn.sum(1, keepdim=True)
    mean_BK = (fixed_BK[index_Bn] * weight_Bn[..., None]).sum(1) / count_B1.clamp_min(1)
    return ((logits_BK - mean_BK).square().sum(1) * (count_B1[:, 0] > 0)).mean()


class OSKD(nn.Module):
    """Our reading of Tzelepi, Passalis and Tefas, "Efficient online subclass knowledge distillation for image classification" (ICPR 2020):
    a network teaches itself. Within a class, images that lie close to each other form a subclass, and an image's output is drawn to its
    own.

        L = L(labels) + weight mean_b |z_b - mean of its nearest neighbours' z|^2        the term `oskd`, see `oskd`

    Established: one stage, one network, soft labels of the network's own that tell subclasses apart. Ours: the distance, the mean over
    neighbours, that they have no gradient, both defaults.

    weight: >= 0. neighbours: >= 1. There is no teacher. Batches should hold several images of a class. ValueError: out of range.
    """

    logits_only = True

    def __init__(self, *, weight: float = 0.1, neighbours: int = 3) -> None:
        super().__init__()
        if not weight >= 0 or neighbours < 1:
            raise ValueError(f"weight must be 0 or more and neighbours at least 1, got {weight} and {neighbours}")
        self.weight, self.neighbours = weight, neighbours

    def forward(self, out: "Output", target: Tensor) -> Tensor:
        target = target.argmax(1) if target.is_floating_point() else target
        return self.weight * oskd(full_precision(out.logits), target, neighbours=self.neighbours)
