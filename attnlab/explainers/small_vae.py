"""A small variational autoencoder (Kingma and Welling, 1312.6114).   Legend: B batch, C channels, H, W image size, D latent dimensions."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class SmallVAE(nn.Module):
    """Two convolutions of stride 2 and a Linear to the mean and log variance of z; back by a Linear and two upsampled convolutions.

    Activations are SiLU, whose units do not die. Images of any size of at least 4 pixels, whose size is fixed at the start; normalised
    ones, as the output is not limited.
    """

    def __init__(self, shape: tuple[int, ...], dim: int = 16, width: int = 16) -> None:
        super().__init__()
        channels, *self.size = shape
        self.small = (2 * width, *(math.ceil(math.ceil(size / 2) / 2) for size in self.size))
        self.encoder = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.SiLU(),
            nn.Flatten(), nn.Linear(math.prod(self.small), 2 * dim),
        )  # fmt: skip
        self.widen = nn.Linear(dim, math.prod(self.small))
        self.convs = nn.ModuleList([nn.Conv2d(2 * width, width, 3, padding=1), nn.Conv2d(width, channels, 3, padding=1)])

    def encode(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of z, (B, D)."""
        mean_BD, log_var_BD = self.encoder(x_BCHW).chunk(2, 1)
        return mean_BD, log_var_BD

    def decode(self, z_BD: Tensor) -> Tensor:
        first, second = self.convs
        value = F.silu(self.widen(z_BD)).view(-1, *self.small)
        value = F.silu(first(F.interpolate(value, scale_factor=2, mode="nearest")))
        return second(F.interpolate(value, size=self.size, mode="nearest"))

    def loss(self, x_BCHW: Tensor, *, beta: float = 1.0) -> Tensor:
        """Mean over images of  |x - decode(z)|^2 / 2 + beta KL(q(z | x), N(0, I)),  z ~ q."""
        mean_BD, log_var_BD = self.encode(x_BCHW)
        z_BD = mean_BD + torch.exp(log_var_BD / 2) * torch.randn_like(mean_BD)
        divergence = (mean_BD.square() + log_var_BD.exp() - 1 - log_var_BD).sum(1) / 2
        return ((x_BCHW - self.decode(z_BD)).square().sum((1, 2, 3)) / 2 + beta * divergence).mean()
