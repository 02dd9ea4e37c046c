"""Dropout with the constructor of a placed module."""

from torch import nn


class Dropout(nn.Dropout):
    """Zero every unit with probability `drop`, scale the rest by 1 / (1 - drop) (Hinton et al., arXiv 1207.0580).

        y = x m / (1 - drop),   m ~ Bernoulli(1 - drop) per unit;   identity in eval

    This is torch.nn.Dropout with the constructor of a placed module.

    Args:
        shape: the place's shape without batch; any, and not needed.
        drop: in [0, 1]; 0.5 before the last Linear is the paper's, Wide-ResNets take 0.3 inside a block.

    Shapes: x (B, ...) -> y (B, ...). Raises ValueError for a drop outside [0, 1].
    Differs from the paper in: units are scaled in training (inverted dropout) instead of weights at test time; equal in expectation.
    """

    def __init__(self, shape: tuple[int, ...], *, drop: float = 0.5):
        if not 0 <= drop <= 1:
            raise ValueError(f"drop must be in [0, 1], got {drop}")
        super().__init__(drop)
