"""Final layer on the unit sphere: logits are scaled cosines."""
# B batch, D features, K classes

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape


class CosineHead(nn.Module):
    """z_k = s cos(h, w_k) = s <h, w_k> / (|h| |w_k|), in the place of `fc`: l2-normalised features and weights, no bias.

    L2 normalisation is one of the tools of "Verifying the Causes of Adversarial Examples" (Li et al., ICPR 2020); the layer is the one of
    NormFace (Wang et al., arXiv 1704.06369), and s = 16 our reading (16 to 30 are usual). With s too small softmax cannot reach the labels:
    the smallest possible cross-entropy of K classes whose weights form a simplex is log(1 + (K - 1) exp(-s K / (K - 1))).
    learn_scale: s = scale * exp(g), g learned from 0.

    shape: (D,); x: (B, D) -> (B, K). The cosines are computed in fp32 or better; h = 0 gives logits 0. Losses and OOD heads that
    need the Linear at `fc` do not apply. Raises ValueError for another place and scale <= 0.
    """

    def __init__(self, shape: tuple[int, ...], *, num_classes: int, scale: float = 16.0, learn_scale: bool = False):
        super().__init__()
        check_shape(shape, "D", what="a cosine head", hint="it stands in the place of fc")
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be above 0 and finite, got {scale}")
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(num_classes, shape[0]))
        nn.init.normal_(self.weight, std=1 / math.sqrt(shape[0]))
        self.log_gain = nn.Parameter(torch.zeros(())) if learn_scale else None

    def forward(self, h_BD: Tensor) -> Tensor:
        with torch.autocast(h_BD.device.type, enabled=False):
            h_BD = h_BD.to(torch.promote_types(h_BD.dtype, self.weight.dtype))
            z_BK = self.scale * F.linear(F.normalize(h_BD, dim=1), F.normalize(self.weight, dim=1))
            return z_BK if self.log_gain is None else z_BK * self.log_gain.exp()

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, scale={self.scale}"
