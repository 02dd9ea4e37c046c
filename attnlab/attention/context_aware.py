"""Context-aware residual module: channel weights from several fields of view, then a spatial map from several scales."""
# B batch, C channels, H height, W width, S groups of channels

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attnlab.attention.position import hidden_channels
from attnlab.placement.shapes import check_shape


class ContextAwareChannels(nn.Module):
    """w = sigmoid( sum_d MLP(mean over the map of BN(depthwise 3x3 convolution of x, dilation d)) ), (B, C, 1, 1); one MLP for all d."""

    def __init__(self, channels: int, dilations: Sequence[int], reduction: int):
        super().__init__()
        self.fields = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=d, dilation=d, groups=channels, bias=False), nn.BatchNorm2d(channels))
            for d in dilations
        )
        hidden = hidden_channels(channels, reduction)
        self.mlp = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.ReLU(), nn.Conv2d(hidden, channels, 1))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return sum(self.mlp(field(x_BCHW).mean((2, 3), keepdim=True)) for field in self.fields).sigmoid()


class MultiScaleMap(nn.Module):
    """Groups of channels one after the other, y_1 = x_1, y_i = depthwise3x3(x_i + y_{i-1}); then a map in (0, 1), (B, 1, H, W).

    map = sigmoid(conv7x7([mean over channels; max over channels] of conv1x1(concat y_i))).
    """

    def __init__(self, channels: int, groups: int):
        super().__init__()
        size = channels // groups
        self.groups = groups
        self.scales = nn.ModuleList(nn.Conv2d(size, size, 3, padding=1, groups=size, bias=False) for _ in range(groups - 1))
        self.mix = nn.Conv2d(channels, channels, 1, bias=False)
        self.attend = nn.Conv2d(2, 1, 7, padding=3, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        first, *rest = x_BCHW.chunk(self.groups, 1)
        ys = [first]
        for part, scale in zip(rest, self.scales, strict=True):
            ys.append(scale(part + ys[-1]))
        y_BCHW = self.mix(torch.cat(ys, 1))
        return self.attend(torch.cat([y_BCHW.mean(1, keepdim=True), y_BCHW.amax(1, keepdim=True)], 1)).sigmoid()


class ContextAwareResidual(nn.Module):
    """y = x + x w M: channel weights w, then a spatial map M, with a short residual; put at the end of a residual branch.

    Our reading of the context-aware residual module (Bai and Chen, ICPR 2020), known from its abstract. Established: MSCAM, channel weights
    from a feature's own scale and its surroundings; MSSAM, multi-scale spatial information at a granular level; either or both, with a
    short residual connection, in any network. Ours: every layer of `ContextAwareChannels` and `MultiScaleMap` (as in Res2Net).

    shape: (C, H, W); x, y: (B, C, H, W). channels, spatial: which of the two; M is computed from x w. dilations: fields of view, 1 the own
    scale. reduction: of the MLP, at least 4 hidden channels. groups: S, must divide C. `.map`: M of the last forward, or None.
    Raises ValueError for another place, neither of the two, no dilation, a size below 1, groups that do not divide C.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        channels: bool = True,
        spatial: bool = True,
        dilations: Sequence[int] = (1, 2, 3),
        reduction: int = 16,
        groups: int = 4,
    ):
        super().__init__()
        check_shape(shape, "CHW", what="a context-aware residual")
        if not (channels or spatial):
            raise ValueError("channels and spatial are both off; one must be on")
        if not dilations or min(dilations) < 1:
            raise ValueError(f"dilations must be one or more numbers of at least 1, got {list(dilations)}")
        if reduction < 1:
            raise ValueError(f"reduction must be at least 1, got {reduction}")
        if groups < 1 or shape[0] % groups:
            raise ValueError(f"groups must divide the {shape[0]} channels, got {groups}")
        self.channels = ContextAwareChannels(shape[0], dilations, reduction) if channels else None
        self.spatial = MultiScaleMap(shape[0], groups) if spatial else None
        self.map: Tensor | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = x_BCHW if self.channels is None else x_BCHW * self.channels(x_BCHW)
        if self.spatial is not None:
            self.map = self.spatial(y_BCHW)
            y_BCHW = y_BCHW * self.map
        return x_BCHW + y_BCHW

    def __getstate__(self):  # a copy takes the weights, not the graph of the last batch (which cannot be copied)
        return {**super().__getstate__(), "map": None}
