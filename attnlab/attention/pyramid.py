"""Attention pyramid: channel attention at several scales of a map, joined by weights of the scales."""
# B batch, C channels, H height, W width, S scales, s x s cells of a scale

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.attention.position import hidden_channels
from attnlab.placement.shapes import check_shape


class AttentionPyramid(nn.Module):
    """y = x W, one weight for every channel and position, from a pyramid of pooled maps.

        P_s = mean pooling of x to s x s;   E_s = conv1x1_{R->C}(ReLU(conv1x1_{C->R}(P_s))), shared by the scales
        beta = softmax_s( w2 ReLU(W1 mean(E_s)) ), the weights of the scales;   W = sigmoid( sum_s beta_s U(E_s) ), U: bilinear to H x W

    Our reading of the attention pyramid module (Qiao et al., ICPR 2020), known from its abstract. Established: several scales in one light
    module, interdependency among scales, recalibration and aggregation. Ours: every formula. With scales [1] it is squeeze-and-excitation.

    shape: (C, H, W); x, y: (B, C, H, W). scales: s, different, >= 1; one above the map's size repeats cells. reduction: R = C / reduction,
    at least 4. `.scale_weights`: beta of the last forward, (B, S). 2 C R + C + R weights and the small network of beta.
    Raises ValueError for another place, no scale, one below 1 or twice, reduction < 1.
    """

    def __init__(self, shape: tuple[int, ...], *, scales: Sequence[int] = (1, 2, 4), reduction: int = 16):
        super().__init__()
        check_shape(shape, "CHW", what="an attention pyramid")
        if not scales or min(scales) < 1 or len(set(scales)) < len(scales):
            raise ValueError(f"scales must be one or more different numbers of at least 1, got {list(scales)}")
        if reduction < 1:
            raise ValueError(f"reduction must be at least 1, got {reduction}")
        channels, hidden = shape[0], hidden_channels(shape[0], reduction)
        self.scales = tuple(scales)
        self.excite = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))
        self.weigh = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.scale_weights: Tensor | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        maps = [self.excite(F.adaptive_avg_pool2d(x_BCHW, s)) for s in self.scales]
        self.scale_weights = torch.cat([self.weigh(e_BCss.mean((2, 3))) for e_BCss in maps], 1).softmax(1)
        size = x_BCHW.shape[2:]
        full = [F.interpolate(e_BCss, size, mode="bilinear", align_corners=False) for e_BCss in maps]
        total_BCHW = sum(beta_B[:, None, None, None] * e_BCHW for beta_B, e_BCHW in zip(self.scale_weights.unbind(1), full))
        return x_BCHW * total_BCHW.sigmoid().to(x_BCHW.dtype)

    def __getstate__(self):  # a copy takes the weights, not the graph of the last batch (which cannot be copied)
        return {**super().__getstate__(), "scale_weights": None}
