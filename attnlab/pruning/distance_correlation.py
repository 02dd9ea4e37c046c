"""Distance correlation: how much two sets of values tell of each other, by distances.   Legend: N images, D, E values."""

import torch
from torch import Tensor


def distance_correlation(x_ND: Tensor, y_NE: Tensor) -> Tensor:
    """R in [0, 1], 0-d, float64 (Szekely, Rizzo and Bakirov, "Measuring and testing dependence by correlation of distances", 2007):

        A = a - row means - column means + mean,  a_ij = |x_i - x_j|;  B alike of y;   R^2 = <A, B> / (|A| |B|)

    In the limit of many images R = 0 only if x and y are independent; R = 1 where one is a similarity of the other; 0 for a constant.
    """
    a_NN, b_NN = _centred(x_ND), _centred(y_NE)
    scale = a_NN.norm() * b_NN.norm()
    return torch.where(scale > 0, (a_NN * b_NN).sum() / scale.clamp_min(torch.finfo(scale.dtype).tiny), 0).clamp_min(0).sqrt()


def _centred(x_ND: Tensor) -> Tensor:
    x_ND = x_ND.double()
    d_NN = torch.cdist(x_ND, x_ND, compute_mode="donot_use_mm_for_euclid_dist")
    return d_NN - d_NN.mean(0) - d_NN.mean(1, keepdim=True) + d_NN.mean()
