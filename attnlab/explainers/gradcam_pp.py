"""Grad-CAM++ (Chattopadhay et al., 1710.11063).   Legend: B batch, K channels of the feature maps, h, w their size."""

import torch
from torch import Tensor

from attnlab.explainers.feature_maps import ClassActivationMap

EPS = 1e-6


class GradCAMPlusPlus(ClassActivationMap):
    """With g = dy_c / dA:  alpha = g^2 / (2 g^2 + sum_hw(A_k) g^3),  w_k = sum_hw alpha ReLU(g),  map = ReLU( sum_k w_k A_k ).

    alpha is 0 where g is. The paper's closed form of the higher derivatives, for a score exp(y_c). As in the grad-cam library 1e-6 is added
    to alpha's denominator; torchcam never divides by it. `at`, the place of A, interpolation and errors: see ClassActivationMap.
    """

    def combine(self, maps_BKhw: Tensor, gradient_BKhw: Tensor) -> Tensor:
        square = gradient_BKhw**2
        below = 2 * square + maps_BKhw.sum((2, 3), keepdim=True) * square * gradient_BKhw + EPS
        alpha = torch.where(gradient_BKhw != 0, square / below, 0)
        return ((alpha * gradient_BKhw.relu()).sum((2, 3), keepdim=True) * maps_BKhw).sum(1, keepdim=True)
