"""Terms of learning with few labels: what two networks say of an image agrees, and features gather.

Shapes: B batch, K classes, D features. All are pure functions and read nothing from the device.
"""

import torch
from torch import Tensor


def softmax_mse(logits_BK: Tensor, reference_BK: Tensor) -> Tensor:
    """Mean over B and K of (softmax(z) - softmax(z'))^2, the mean teacher's consistency (Tarvainen and Valpola, arXiv 1703.01780).

    In [0, 2 / K], in fp32 or better. Whoever wants no gradient by the reference detaches it.
    """
    p_BK, q_BK = (z_BK.to(torch.promote_types(z_BK.dtype, torch.float32)).softmax(1) for z_BK in (logits_BK, reference_BK))
    return (p_BK - q_BK).square().mean()


def local_clustering(features_BD: Tensor, labelled_B: Tensor, *, radius: float) -> Tensor:
    """Features move towards unlabelled neighbours (Chen et al., arXiv 2004.09665):  P(labelled, unlabelled) + P(unlabelled, unlabelled)

        P(F, G) = sum_ij d_ij n_ij exp(-d_ij / r) / sum_ij n_ij,   d_ij = mean_c (f_i - g_j)^2,   n_ij = 1[d_ij <= r]

    Pairs (i, i) count in the denominator, and the gradient flows through the exponential too, both as in the authors' code. r is in the
    features' own squared units. 0 where no pair is near. labelled_B: bool. In fp32 or better: the counts of pairs are beyond bf16.
    """
    features_BD = features_BD.to(torch.promote_types(features_BD.dtype, torch.float32))
    d_BB = (features_BD[:, None] - features_BD).square().mean(2)
    near_BB = (d_BB <= radius).to(d_BB.dtype)
    pull_BB = d_BB * near_BB * torch.exp(-d_BB / radius)
    unlabelled_B = (~labelled_B).to(d_BB.dtype)
    total = d_BB.new_zeros(())
    for rows_B in (labelled_B.to(d_BB.dtype), unlabelled_B):
        pairs_BB = rows_B[:, None] * unlabelled_B
        total = total + (pull_BB * pairs_BB).sum() / (near_BB * pairs_BB).sum().clamp_min(1)
    return total


def ramp_up(time: Tensor, length: float) -> Tensor:
    """exp(-5 (1 - t / T)^2) from t > 0 to T, 0 before and 1 after (Laine and Aila, arXiv 1610.02242). time: 0-d or of any shape."""
    share = (time / length).clamp(max=1) if length > 0 else torch.ones_like(time)
    return torch.exp(-5 * (1 - share).square()) * (time > 0)
