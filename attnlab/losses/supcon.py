"""Supervised contrastive loss.   Shapes: B batch, D features."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.losses.metric_learning import check_features, probe

if TYPE_CHECKING:
    from attnlab.network import Output


class SupCon(nn.Module):
    """Images of a class together, all others apart (Khosla et al., "Supervised contrastive learning", arXiv 2004.11362, L_out):

        s_ij = cos(f_i, f_j) / temperature,  P(i) the others of i's class
        L_i = -1/|P(i)| sum_{j in P(i)} [ s_ij - log sum_{a != i} exp s_ia ]
        {"supcon": weight, times the mean over images with another of their class,  "ce": cross-entropy(fc(stop-gradient f), y)}

    Differs from the paper in: one view an image, its positives being the other images of its class in the batch; no projection head; the
    classifier `fc` is a probe trained at the same time, not afterwards. pytorch-metric-learning's loss is the same number (a test); it is
    not called, as it waits for the device in every step.

    temperature: > 0 (.1 as in the paper). weight: >= 0. Raises ValueError: a value out of range; soft labels; no features.
    """

    soft_targets = False
    needs_fc = True
    takes_copies = False

    def __init__(self, num_classes: int, dim: int, *, temperature: float = 0.1, weight: float = 1.0):
        super().__init__()
        if not temperature > 0 or not weight >= 0:
            raise ValueError(f"temperature must be above 0 and weight at least 0, got {temperature} and {weight}")
        self.temperature, self.weight, self.dim = temperature, weight, dim

    def forward(self, out: "Output", y: Tensor) -> dict[str, Tensor]:
        check_features(out, y, dim=self.dim, name="supcon")
        with torch.autocast(y.device.type, enabled=False):
            f_BD = F.normalize(out.features.to(torch.promote_types(out.features.dtype, torch.float32)))
            s_BB = f_BD @ f_BD.mT / self.temperature
            self_BB = torch.eye(len(y), dtype=torch.bool, device=y.device)
            log_p_BB = s_BB - s_BB.masked_fill(self_BB, float("-inf")).logsumexp(1, keepdim=True)
            positive_BB = (y[:, None] == y) & ~self_BB
            count_B = positive_BB.sum(1)
            loss_B = -torch.where(positive_BB, log_p_BB, 0.0).sum(1) / count_B.clamp_min(1)
            loss = loss_B.sum() / (count_B > 0).sum().clamp_min(1)
            return {"supcon": self.weight * loss, "ce": probe(out, y)}
