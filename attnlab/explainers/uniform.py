"""A control: the uniform map.   Legend: B batch, C channels, H, W image size."""

from torch import Tensor, nn


class Uniform:
    """1 everywhere. Its energy in a box is the box's share of the image; deletion takes pixels in reading order."""

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        return x_BCHW.new_ones(len(x_BCHW), 1, *x_BCHW.shape[2:])
