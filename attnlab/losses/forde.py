"""Repulsion of an ensemble's members by their input gradients.   Legend: M members, B batch, D input values, flattened."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor


def input_gradient_repulsion(
    gradients_MBD: Tensor, *, basis_DD: Tensor | None = None, scale_D: Tensor | None = None, eps: float = 1e-12
) -> Tensor:
    """R of FoRDE (Trinh et al., "Input-gradient space particle inference for neural network ensembles", arXiv 2306.02775), 0-d:

        s_mb = U^T g_mb;  s <- sqrt(lambda) s / sqrt(|s|^2 + eps);   d_ijb = |s_ib - s_jb|^2
        k_ij = 1/B sum_b exp(-d_ijb / h_jb),  h_jb = median_i(d_ijb) / log M + 1e-12;   R = 1/B sum_i log sum_j k_ij

    g_mb is the gradient by image b of member m's logit of the true class (with create_graph=True, so that R trains the members). The j side
    and h are constants to the gradient. The ensemble's loss is sum_m CE_m + R. The median is over all i, the zero of i = j included, as in
    the authors' code.

    Args:
        basis_DD: U, principal axes of the normalised training images as columns; None: identity. scale_D: sqrt(lambda), square roots of
            their variances; None: 1. FoRDE-PCA has both, FoRDE-Identity neither.
        eps: 1e-12; the authors' PCA variant has 1e-24.

    Raises ValueError: fewer than two members. Identical members: R = M / B log M, with gradient 0.
    """
    *_, kernel_MM = input_gradient_kernel(gradients_MBD, basis_DD=basis_DD, scale_D=scale_D, eps=eps)
    return kernel_MM.sum(1).log().sum() / gradients_MBD.shape[1]


def input_gradient_kernel(
    gradients_MBD: Tensor, *, basis_DD: Tensor | None = None, scale_D: Tensor | None = None, eps: float = 1e-12
) -> tuple[Tensor, Tensor, Tensor]:
    """Squared distances d (M, M, B), bandwidths h (M, B) and the kernel k (M, M) of `input_gradient_repulsion`."""
    num_members = len(gradients_MBD)
    if num_members < 2:
        raise ValueError("repulsion acts between the members of an ensemble; there is one")
    s_MBD = gradients_MBD if basis_DD is None else gradients_MBD @ basis_DD
    s_MBD = s_MBD * torch.rsqrt(s_MBD.square().sum(2, keepdim=True) + eps)
    s_MBD = s_MBD if scale_D is None else s_MBD * scale_D
    d_MMB = (s_MBD[:, None] - s_MBD.detach()).square().sum(3)
    sorted_MMB = d_MMB.detach().sort(0).values
    median_MB = (sorted_MMB[(num_members - 1) // 2] + sorted_MMB[num_members // 2]) / 2
    width_MB = median_MB / math.log(num_members) + 1e-12
    return d_MMB, width_MB, torch.exp(-d_MMB / width_MB).mean(2)


def principal_axes(batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Principal axes of images, as columns (D, D), and their variances (D,), largest first, float64; images are flattened (B, D)."""
    count, total_D, square_DD = 0, 0.0, 0.0
    for x in batches:
        x_BD = x.flatten(1).double()
        count, total_D, square_DD = count + len(x_BD), total_D + x_BD.sum(0), square_DD + x_BD.mT @ x_BD
    mean_D = total_D / count
    variance_D, axes_DD = torch.linalg.eigh(square_DD / count - mean_D[:, None] * mean_D)
    return axes_DD.flip(1), variance_D.flip(0).clamp_min(0)
