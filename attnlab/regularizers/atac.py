"""ATAC: attention as activation, a gate from a small bottleneck that stands in the place of ReLU."""
# B batch, C channels, H height, W width, R hidden channels

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape


class ATAC(nn.Module):
    """y = x * sigmoid(BN(W2 ReLU(BN(W1 x)))): attentional activation (Dai et al., arXiv 2007.07729).

    W1: 1x1 convolution C -> R = C / reduction, W2: R -> C, both without bias. `context="local"` gates every position by its own channels,
    as the paper's unit; "global" averages x over the map first, so that the gate is shared by all positions (the paper's ablation; squeeze
    and excitation with two batch norms). The gate is in (0, 1): y has the sign of x and |y| <= |x|.

    shape: (C, H, W) of the place, to be put in the stead of an activation (`how: replace`); x and y: (B, C, H, W).
    2 C R + 2 C + 2 R parameters (C C + 3 C with reduction 2), so compare with a network of equal parameters, as the paper does.
    Raises ValueError for a place that is not (C, H, W) and for reduction < 1. In training, `global` needs a batch of two images at least.

    Differs from the authors' code (MXNet) in: running variances are the unbiased ones of torch, theirs are biased; the 1x1 convolutions
    start by He's rule (fan-in, normal).
    """

    def __init__(self, shape: tuple[int, ...], *, reduction: int = 2, context: Literal["local", "global"] = "local"):
        super().__init__()
        check_shape(shape, "CHW", what="atac")
        if reduction < 1:
            raise ValueError(f"reduction must be at least 1, got {reduction}")
        if context not in ("local", "global"):
            raise ValueError(f"context must be local or global, got {context!r}")
        channels = shape[0]
        hidden = max(channels // reduction, 1)
        self.context = context
        self.reduce = nn.Conv2d(channels, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.expand = nn.Conv2d(hidden, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        for conv in (self.reduce, self.expand):
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        seen = x_BCHW.mean((2, 3), keepdim=True) if self.context == "global" else x_BCHW
        gate = self.bn2(self.expand(F.relu(self.bn1(self.reduce(seen))))).sigmoid()
        return x_BCHW * gate

    def extra_repr(self) -> str:
        return f"context={self.context}"
