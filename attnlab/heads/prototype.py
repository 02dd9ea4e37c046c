"""Prototype head: a probabilistic neural network, classes as mixtures of Gaussians around learned prototypes."""
# B batch, D features, K classes, J prototypes of a class

import math

import torch
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape


class PrototypeHead(nn.Module):
    """z_k = log sum_j exp(-|h - p_kj|^2 / (2 sigma^2)), in the place of `fc`: our reading of the PNN heads of Li et al. (ICPR 2020).

    "Verifying the Causes of Adversarial Examples" replaces the linear head by a probabilistic neural network, whose logits fall with the
    distance to what was seen. Established: that kind of head. Ours: prototypes are learned, J of them a class, and sigma.
    One prototype a class is a linear classifier with tied bias plus -|h|^2 / (2 sigma^2), which softmax does not see but energies do.

    shape: (D,); x: (B, D) -> (B, K), all <= log J. sigma: > 0; default sqrt(D), for features of about unit variance. Prototypes start as
    N(0, 1). Distances are computed in fp32 or better. Losses and OOD heads that need the Linear at `fc` do not apply.
    Raises ValueError for another place, prototypes < 1, sigma <= 0.
    """

    def __init__(self, shape: tuple[int, ...], *, num_classes: int, prototypes: int = 1, sigma: float | None = None):
        super().__init__()
        check_shape(shape, "D", what="a prototype head", hint="it stands in the place of fc")
        if prototypes < 1:
            raise ValueError(f"prototypes must be at least 1, got {prototypes}")
        if sigma is not None and not 0 < sigma < math.inf:
            raise ValueError(f"sigma must be above 0 and finite, got {sigma}")
        self.sigma = math.sqrt(shape[0]) if sigma is None else sigma
        self.prototypes = nn.Parameter(torch.randn(num_classes, prototypes, shape[0]))

    def forward(self, h_BD: Tensor) -> Tensor:
        with torch.autocast(h_BD.device.type, enabled=False):
            h_BD = h_BD.to(torch.promote_types(h_BD.dtype, self.prototypes.dtype))
            p_MD = self.prototypes.flatten(0, 1)  # M = K J
            squared_BM = (h_BD**2).sum(1, keepdim=True) - 2 * h_BD @ p_MD.T + (p_MD**2).sum(1)
            return (-squared_BM.clamp_min(0) / (2 * self.sigma**2)).unflatten(1, self.prototypes.shape[:2]).logsumexp(2)

    def extra_repr(self) -> str:
        return f"{', '.join(map(str, self.prototypes.shape))}, sigma={self.sigma:.4g}"
