"""A control: the centred Gaussian.   Legend: B batch, C channels, H, W image size."""

import torch
from torch import Tensor, nn


class GaussianMap:
    """exp(-(dx^2 / W^2 + dy^2 / H^2) / (2 spread^2)), dx, dy from the image's centre: objects are mostly in the middle.

    Args:
        spread: standard deviation as a share of each side.

    It looks at neither network nor image. Raises ValueError: spread <= 0.
    """

    def __init__(self, *, spread: float = 0.25) -> None:
        if not spread > 0:
            raise ValueError(f"spread must be positive, got {spread}")
        self.spread = spread

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        sides = [
            torch.exp(-(((torch.arange(size, device=x_BCHW.device, dtype=x_BCHW.dtype) + 0.5) / size - 0.5) ** 2) / (2 * self.spread**2))
            for size in x_BCHW.shape[2:]
        ]
        return (sides[0][:, None] * sides[1]).expand(len(x_BCHW), 1, -1, -1).clone()
