"""Stochastic depth: drop a whole residual branch, sample by sample."""
# B batch

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Zero the residual branch of a sample with probability `drop` (Stochastic Depth, Huang et al., arXiv 1603.09382).

        y_b = x_b m_b / (1 - drop),   m_b ~ Bernoulli(1 - drop) per sample;   identity in eval

    Place it at the END of the residual branch, before the addition: after `layer*.*.bn2` for basic blocks, `layer*.*.bn3` for bottlenecks.

    Args:
        shape: the place's shape without batch; any, and not needed.
        drop: in [0, 1]. The paper's linear rule raises it from 0 at the first block to 0.5 at the last; a module does not know its
            depth, so the default is that rule's mean. For the linear rule give each stage its own entry and drop.

    Shapes: x (B, ...) -> y (B, ...), same dtype and memory format. Raises ValueError for a drop outside [0, 1].

    Differs from the paper in: one decision a sample, not a mini-batch (as timm and torchvision do); scaled in training instead of at
    test time; the uniform rule instead of the linear one. Draws the same numbers as timm.layers.drop_path, whose import would cost
    more time than these lines save.
    """

    def __init__(self, shape: tuple[int, ...], *, drop: float = 0.25):
        super().__init__()
        if not 0 <= drop <= 1:
            raise ValueError(f"drop must be in [0, 1], got {drop}")
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.drop == 0:
            return x
        if self.drop == 1:
            return torch.zeros_like(x)  # 0 / 0 otherwise
        keep = 1 - self.drop
        mask_B = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)
        return x * (mask_B / keep)

    def extra_repr(self) -> str:
        return f"drop={self.drop}"
