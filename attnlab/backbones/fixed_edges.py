# B batch, C channels, H height, W width, F filters
"""A first layer of fixed edge filters (Jung and Kwon, ICPR 2020), whose relevance can be told by colour, filter and pixel."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SOBEL = [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]
PREWITT = [[-1, 0, 1], [-1, 0, 1], [-1, 0, 1]]
FILTERS = {
    "identity": [[0, 0, 0], [0, 1, 0], [0, 0, 0]],
    "sobel_x": SOBEL,
    "sobel_y": [list(row) for row in zip(*SOBEL)],
    "prewitt_x": PREWITT,
    "prewitt_y": [list(row) for row in zip(*PREWITT)],
    "roberts_down": [[0, 0, 0], [0, 1, 0], [0, 0, -1]],
    "roberts_up": [[0, 0, 0], [0, 0, 1], [0, -1, 0]],
    "laplacian_4": [[0, 1, 0], [1, -4, 1], [0, 1, 0]],
    "laplacian_8": [[1, 1, 1], [1, -8, 1], [1, 1, 1]],
    "sobel_down": [[0, 1, 2], [-1, 0, 1], [-2, -1, 0]],
    "sobel_up": [[2, 1, 0], [1, 0, -1], [0, -1, -2]],
}


class FixedEdges(nn.Module):
    """Every channel through every filter of FILTERS: (B, C, H, W) -> (B, C F, H / stride, W / stride), map c F + f of channel c, filter f.

    3x3, zero padding of 1, no bias; the filters are a buffer and are not trained. Each is divided by the sum of its magnitudes, so that all
    have one scale.

    Our reading: the paper names Sobel, Prewitt and others; the list and the scale are ours. Explained by `explainer=fixed_edges`.
    """

    def __init__(self, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.channels, self.stride = channels, stride
        kernels_F33 = torch.tensor(list(FILTERS.values()), dtype=torch.float32)
        kernels_F33 /= kernels_F33.abs().sum((1, 2), keepdim=True)
        self.register_buffer("kernel", kernels_F33[:, None].repeat(channels, 1, 1, 1))

    @property
    def num_maps(self) -> int:
        return len(self.kernel)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return F.conv2d(x_BCHW, self.kernel, stride=self.stride, padding=1, groups=self.channels)
