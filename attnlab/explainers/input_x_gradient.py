"""Input x gradient (Shrikumar et al., 1605.01713).   Legend: B batch, C channels, H, W image size."""

from torch import Tensor, nn

from attnlab.explainers.attribution import channel_sum, score_gradient


class InputXGradient:
    """attribution = x * dy_c / dx,  map = its sum over channels, signed: > 0 for the class, < 0 against it.

    x is normalised, so a pixel of the data's mean colour gets 0. For a network without biases that is piecewise linear (ReLU, pooling)
    the attribution sums to the logit. Scores rank by magnitude (`signed`).
    """

    signed = True

    def attribute(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        """(B, C, H, W), signed."""
        return x_BCHW * score_gradient(network, x_BCHW, target_B)

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        return channel_sum(self.attribute(network, x_BCHW, target_B))
