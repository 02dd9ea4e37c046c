"""SE1C: channel attention of two poolings through one small convolution over the channels."""
# B batch, C channels, H height, W width

import math

from torch import Tensor, nn

from attnlab.placement.shapes import check_shape


class SE1C(nn.Module):
    """y = x sigmoid( conv(mean over the map of x) + conv(max over the map of x) ), conv: one kernel of k weights along the channels.

    Our reading of SE1C in PSDNet (Liu and Lian, ICPR 2020). Established, by its abstract: squeeze-and-excitation improved by a 1-D
    convolution that combines two variants of global pooling without more parameters. Ours: that the two share the kernel, that their sum
    goes into the sigmoid, and the size k. With mean pooling alone it would be ECA (`attention=eca`).

    shape: (C, H, W); x, y: (B, C, H, W). kernel: k, odd; default ECA's rule, |log2(C) / 2 + 1 / 2| cut, then the odd
    number at or above it, at least 3. k parameters, no bias. Raises ValueError for another place and for an even kernel.
    """

    def __init__(self, shape: tuple[int, ...], *, kernel: int | None = None):
        super().__init__()
        check_shape(shape, "CHW", what="se1c")
        if kernel is None:
            kernel = int(abs(math.log2(shape[0]) / 2 + 0.5))
            kernel = max(kernel + 1 - kernel % 2, 3)
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"kernel must be odd and at least 1, got {kernel}")
        self.conv = nn.Conv1d(1, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        mean_B1C, max_B1C = x_BCHW.mean((2, 3))[:, None], x_BCHW.amax((2, 3))[:, None]
        gate_BC = (self.conv(mean_B1C) + self.conv(max_B1C)).sigmoid()[:, 0]
        return x_BCHW * gate_BC[:, :, None, None]
