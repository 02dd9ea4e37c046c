"""Second-order pooling: the iterative square root of a map's covariance, and a head that joins it with first-order features."""
# B batch, C channels, H height, W width, D features, K classes, d reduced channels

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attnlab.losses.auxiliary import auxiliary_cross_entropy
from attnlab.placement.shapes import check_shape


def covariance(x_BCHW: Tensor) -> Tensor:
    """(1/n) X (I - 11'/n) X' of every image, over its n = H W positions: (B, C, C)."""
    x_BCN = x_BCHW.flatten(2)
    centred_BCN = x_BCN - x_BCN.mean(2, keepdim=True)
    return centred_BCN @ centred_BCN.mT / x_BCN.shape[2]


def matrix_square_root(sigma_BCC: Tensor, iterations: int) -> Tensor:
    """The square root of positive semi-definite matrices by Newton-Schulz iteration (iSQRT-COV, Li et al., arXiv 1712.01034), N >= 2.

    A = S / tr(S);  T_k = (3 I - Z_k Y_k) / 2;  Y_0 = A, Z_0 = I;  Y_{k+1} = Y_k T_k, Z_{k+1} = T_k Z_k;  result sqrt(tr S) Y_N.
    5 iterations, the paper's number, stop well before convergence where eigenvalues are small; 12 reach it. Only products: its gradient is
    autograd's. The trace is kept above 1e-12, so a matrix of zeros gives zeros.
    """
    eye_CC = torch.eye(sigma_BCC.shape[-1], dtype=sigma_BCC.dtype, device=sigma_BCC.device)
    trace_B11 = sigma_BCC.diagonal(dim1=-2, dim2=-1).sum(-1).clamp_min(1e-12)[:, None, None]
    y_BCC = sigma_BCC / trace_B11
    step_BCC = 0.5 * (3 * eye_CC - y_BCC)
    y_BCC, z_BCC = y_BCC @ step_BCC, step_BCC
    for _ in range(iterations - 1):
        step_BCC = 0.5 * (3 * eye_CC - z_BCC @ y_BCC)
        y_BCC, z_BCC = y_BCC @ step_BCC, step_BCC @ z_BCC
    return trace_B11.sqrt() * y_BCC


def upper_triangle(matrix_BCC: Tensor) -> Tensor:
    """The C (C + 1) / 2 values on and above the diagonal, row by row: (B, C (C + 1) / 2)."""
    C = matrix_BCC.shape[-1]
    rows, columns = torch.triu_indices(C, C, device=matrix_BCC.device)
    return matrix_BCC.flatten(1).index_select(1, rows * C + columns)


class MultiOrderHead(nn.Module):
    """Logits from first- and second-order statistics of a middle and the last feature map; put in the place of `fc`, with `reads`.

        v1 = max over the map of ReLU(BN(conv1x1(middle)))        (d)
        v2 = g, the pooled features that `fc` is given            (D)
        v3 = upper triangle of iSQRT(cov(ReLU(BN(conv1x1(last)))))   (d (d + 1) / 2)
        logits = mean of three Linears, one on each;   in training `.penalty` = weight * sum of the three cross-entropies

    The covariance part is iSQRT-COV (Li et al., arXiv 1712.01034) and exact. The rest is our reading of the multi-order feature statistical
    model (MOFS: Wang et al., ICPR 2020), known from its abstract: first-order statistics of middle and high features beside a covariance.
    Ours: d, the reduction, the mean of logits, one cross-entropy each.

    shape: (D,); read_shapes: [middle (C, H, W), last (C, H, W)], `reads: [layer3, layer4, target]`. channels: d. iterations:
    Newton-Schulz steps (5 in the paper). ridge: added to the covariance's diagonal, as a map of H W < d positions has a singular one.
    Statistics run in fp32.
    The final Linear is inside, so losses and OOD heads that need `fc` do not apply. Raises ValueError for other places and sizes below 1.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        read_shapes: Sequence[tuple[int, ...]],
        num_classes: int,
        channels: int = 64,
        iterations: int = 5,
        weight: float = 1.0,
        ridge: float = 1e-5,
    ):
        super().__init__()
        check_shape(shape, "D", what="a covariance head", hint="it stands in the place of fc")
        if len(read_shapes) != 2 or any(len(read) != 3 for read in read_shapes):
            raise ValueError(f"reads must be two places with maps and target, as [layer3, layer4, target]; got shapes {list(read_shapes)}")
        if channels < 2:
            raise ValueError(f"channels must be at least 2, got {channels}")
        if iterations < 2:
            raise ValueError(f"iterations must be at least 2, got {iterations}")
        for name, value in {"weight": weight, "ridge": ridge}.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be at least 0, got {value}")
        self.iterations, self.weight, self.ridge = iterations, weight, ridge
        self.reduce_middle, self.reduce_last = (_reduce(read[0], channels) for read in read_shapes)
        self.classifiers = nn.ModuleList(nn.Linear(size, num_classes) for size in (channels, shape[0], channels * (channels + 1) // 2))
        self.penalty: Tensor | None = None

    def forward(self, g_BD: Tensor, middle_BCHW: Tensor, last_BCHW: Tensor, target: Tensor | None) -> Tensor:
        first_Bd = self.reduce_middle(middle_BCHW).amax((2, 3))
        last_BdHW = self.reduce_last(last_BCHW)
        with torch.autocast(g_BD.device.type, enabled=False):
            last_BdHW = last_BdHW.to(torch.promote_types(last_BdHW.dtype, torch.float32))
            sigma_Bdd = covariance(last_BdHW)
            sigma_Bdd = sigma_Bdd + self.ridge * torch.eye(sigma_Bdd.shape[-1], dtype=sigma_Bdd.dtype, device=sigma_Bdd.device)
            second_BE = upper_triangle(matrix_square_root(sigma_Bdd, self.iterations))
        logits_3BK = torch.stack([classify(v) for classify, v in zip(self.classifiers, (first_Bd, g_BD, second_BE))])
        self.penalty = None
        if target is not None:
            self.penalty = self.weight * sum(auxiliary_cross_entropy(z_BK, target) for z_BK in logits_3BK.unbind())
        return logits_3BK.mean(0)

    def __getstate__(self):  # a copy takes the weights, not the graph of the last batch (which cannot be copied)
        return {**super().__getstate__(), "penalty": None}


def _reduce(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
