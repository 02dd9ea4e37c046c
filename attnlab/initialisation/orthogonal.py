"""Orthogonal initialisation: weights that keep lengths."""

import math

import torch
from torch import nn


class Orthogonal:
    """A random orthogonal weight, times `gain`, in every convolution and Linear but the last, biases 0 (Saxe et al., arXiv 1312.6120).

    A convolution's kernel is the matrix (output channels, the rest), as in `torch.nn.init.orthogonal_`: its rows are orthonormal, or its
    columns where there are fewer of them. gain > 0; sqrt(2) keeps lengths through ReLUs on average, 1 in linear networks (the paper's).

    The final layer `fc` keeps the backbone's own start, as do norms. ValueError: gain not above 0.
    """

    def __init__(self, *, gain: float = math.sqrt(2)) -> None:
        if not 0 < gain < math.inf:
            raise ValueError(f"gain must be above 0, got {gain}")
        self.gain = gain

    @torch.no_grad()
    def __call__(self, backbone: nn.Module) -> None:
        for name, layer in backbone.named_modules():
            if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) and name != "fc":
                nn.init.orthogonal_(layer.weight, gain=self.gain)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
