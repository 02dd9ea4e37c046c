"""Gradient, or saliency (Simonyan et al., 1312.6034).   Legend: B batch, C channels, H, W image size."""

from torch import Tensor, nn

from attnlab.explainers.attribution import score_gradient


class Gradient:
    """map = max over channels of | dy_c / dx |,  y_c the logit of the class.

    How fast the score changes with a pixel; it says nothing of the pixel's own part in the score. Maps are >= 0. `attribute` gives the
    signed gradient (B, C, H, W) itself.
    """

    def attribute(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        return score_gradient(network, x_BCHW, target_B)

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        return self.attribute(network, x_BCHW, target_B).abs().amax(1, keepdim=True)
