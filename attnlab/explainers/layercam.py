"""LayerCAM (Jiang et al., TIP 2021).   Legend: B batch, K channels of the feature maps, h, w their size."""

from torch import Tensor

from attnlab.explainers.feature_maps import ClassActivationMap


class LayerCAM(ClassActivationMap):
    """map = ReLU( sum_k ReLU(dy_c / dA_k) * A_k ), element by element: sharp maps of shallow places too.

    The paper fuses several places, shallow ones after tanh scaling; here it is one. `at`, the place of A, interpolation and errors: see
    ClassActivationMap.
    """

    def combine(self, maps_BKhw: Tensor, gradient_BKhw: Tensor) -> Tensor:
        return (gradient_BKhw.relu() * maps_BKhw).sum(1, keepdim=True)
