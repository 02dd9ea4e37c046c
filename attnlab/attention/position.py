# B batch, C channels, H W height and width of the map
"""Position-wise spatial attention: one free weight per cell of the map. The control for rectangular attention."""

import torch
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape


def hidden_channels(channels: int, reduction: int) -> int:
    """C / reduction, four at least: for narrow networks."""
    return max(channels // reduction, 4)


def score_head(channels: int, hidden: int) -> nn.Sequential:
    """conv3x3(C -> hidden), BN, ReLU, conv1x1(-> 1): one score per cell; hidden (9 C + 3) + 1 parameters.

    Batch norm needs more than one value per channel: in training, a batch of one on a 1x1 map raises ValueError.
    """
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
    of the map and in nothing else: same parameters, same place. `RectAttention(predictor="grid")` has more: for a control
    of its size give its number of parameters as `budget`.

    shape: (C, H, W) of one image's features at the place; x and y: (B, C, H, W). reduction: hidden channels = C / reduction, at least 4.
    budget: instead of `reduction`, as many hidden channels as come nearest to so many parameters (within (9 C + 3) / 2 of it).
    `.map`: (B, 1, H, W) in [0, 1], fp32, of the last forward.
    Raises ValueError for another shape, reduction < 1 or a budget below one hidden channel.
    """

    def __init__(self, shape: tuple[int, ...], *, reduction: int = 4, budget: int | None = None):
        super().__init__()
        check_shape(shape, "CHW", what="position attention")
        if reduction < 1:
            raise ValueError(f"reduction must be at least 1, got {reduction}")
        one = 9 * shape[0] + 3  # parameters of a hidden channel; the last bias is one more
        if budget is not None and budget < one + 1:
            raise ValueError(f"budget must be at least {one + 1} parameters at {shape[0]} channels, got {budget}")
        self.score = score_head(shape[0], hidden_channels(shape[0], reduction) if budget is None else round((budget - 1) / one))
        self.map: Tensor | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        scores_B1HW = self.score(x_BCHW)
        with torch.autocast(x_BCHW.device.type, enabled=False):
            self.map = scores_B1HW.to(torch.promote_types(scores_B1HW.dtype, torch.float32)).sigmoid()
        return x_BCHW * self.map.to(x_BCHW.dtype)

    def __getstate__(self):  # a copy takes the weights, not the graph of the last batch (which cannot be copied)
        return {**super().__getstate__(), "map": None}
