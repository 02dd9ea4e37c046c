"""Grad-CAM (Selvaraju et al., 1610.02391).   Legend: B batch, K channels of the feature maps, h, w their size."""

from torch import Tensor

from attnlab.explainers.feature_maps import ClassActivationMap


class GradCAM(ClassActivationMap):
    """alpha_k = mean over (h, w) of dy_c / dA_k,  map = ReLU( sum_k alpha_k A_k ):  feature maps weighted by their mean gradient.

    `at`, the place of the feature maps A, interpolation and errors: see ClassActivationMap.
    """

    def combine(self, maps_BKhw: Tensor, gradient_BKhw: Tensor) -> Tensor:
        return grad_cam(maps_BKhw, gradient_BKhw)


def grad_cam(maps_BKhw: Tensor, gradient_BKhw: Tensor) -> Tensor:
    """sum_k mean_hw(gradient_k) maps_k, (B, 1, h, w), before the ReLU."""
    return (gradient_BKhw.mean((2, 3), keepdim=True) * maps_BKhw).sum(1, keepdim=True)
