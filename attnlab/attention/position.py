# B batch, C channels, H W height and width of the map
"""Position-wise spatial attention: one free weight per cell of the map. The control for rectangular attention."""

import torch
from torch import Tensor, nn


def score_head(channels: int, reduction: int) -> nn.Sequential:
    """conv3x3(C -> max(C/r, 4)), BN, ReLU, conv1x1(-> 1): one score per cell. Four channels at least, for narrow networks.

    Batch norm needs more than one value per channel: in training, a batch of one on a 1x1 map raises ValueError.
    """
    hidden = max(channels // reduction, 4)
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 3, padding=1, bias=False),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, 1, 1),
    )


class PositionAttention(nn.Module):
    """y = x * A with A = sigmoid(conv1x1(ReLU(BN(conv3x3(x))))), one value per position, shared by the channels.

    The baseline of every table of the rectangular attention paper (arXiv 2503.10875), which does not give its layers:
    this is our reading. It is the head that `RectAttention(predictor="moments")` uses, so the two differ in the shape
    of the map and in nothing else: same parameters, same place.

    shape: (C, H, W) of the place; x and y: (B, C, H, W). reduction: hidden channels = C / reduction, at least 4.
    `.map`: (B, 1, H, W) in [0, 1], fp32, of the last forward. Raises ValueError for another shape or reduction < 1.
    """

    def __init__(self, shape: tuple[int, ...], *, reduction: int = 4):
        super().__init__()
        if len(shape) != 3:
            raise ValueError(f"position attention needs a place of shape (C, H, W), got {tuple(shape)}")
        if reduction < 1:
            raise ValueError(f"reduction must be at least 1, got {reduction}")
        self.score = score_head(shape[0], reduction)
        self.map: Tensor | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        scores_B1HW = self.score(x_BCHW)
        with torch.autocast(x_BCHW.device.type, enabled=False):
            self.map = scores_B1HW.to(torch.promote_types(scores_B1HW.dtype, torch.float32)).sigmoid()
        return x_BCHW * self.map.to(x_BCHW.dtype)

    def __getstate__(self):  # a copy takes the weights, not the graph of the last batch (which cannot be copied)
        return {**super().__getstate__(), "map": None}
