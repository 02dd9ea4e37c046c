"""HiResCAM (Draelos and Carin, 2011.08891).   Legend: B batch, K channels of the feature maps, h, w their size."""

from torch import Tensor

from attnlab.explainers.feature_maps import ClassActivationMap


class HiResCAM(ClassActivationMap):
    """map = ReLU( sum_k dy_c / dA_k * A_k ), element by element: what the place's units give to the score, to first order.

    Grad-CAM averages the gradient first; both agree where a mean over (h, w) and a linear layer follow. `at`, the place of A,
    interpolation and errors: see ClassActivationMap.
    """

    def combine(self, maps_BKhw: Tensor, gradient_BKhw: Tensor) -> Tensor:
        return hires_cam(maps_BKhw, gradient_BKhw)


def hires_cam(maps_BKhw: Tensor, gradient_BKhw: Tensor) -> Tensor:
    """sum_k gradient_k maps_k, (B, 1, h, w), before the ReLU."""
    return (gradient_BKhw * maps_BKhw).sum(1, keepdim=True)
