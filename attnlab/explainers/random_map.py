"""A control: the random map.   Legend: B batch, C channels, H, W image size."""

import torch
from torch import Tensor, nn


class RandomMap:
    """Uniform noise in [0, 1) a pixel, by `seed`: what an explainer scores that knows nothing. It looks at neither network nor image."""

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed)
        return torch.rand(len(x_BCHW), 1, *x_BCHW.shape[2:], generator=generator).to(x_BCHW)
