"""Advanced Dropout: a sigmoid-normal mask whose distribution is learned from the features."""
# B batch, D features (flattened), R hidden units

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.placement.shapes import ANY, check_shape


class AdvancedDropout(nn.Module):
    """Dropout with a learned, input-dependent mask distribution (Xie et al., arXiv 2010.05244).

        h = x W_h^T + b_h;  mu = mean_B(h W_mu^T + b_mu);  sigma = mean_B softplus(h W_sigma^T + b_sigma)      (scalars of the batch)
        m = sigmoid(mu + sigma eps),  eps ~ N(0, 1) per unit;  y = x m / sigmoid(mu / sqrt(1 + pi/8 sigma^2));   identity in eval

    The divisor approximates E[m], so E[y] = x within some percent; mu and sigma are detached in it, which is what lets them learn: only
    the mask carries their gradient.

    Args:
        shape: (D,), or (C, H, W) which is flattened (the first matrix then has (C H W)^2 / reduction weights: keep the map small).
        reduction: R = D // reduction, >= 1 and <= D.

    Shapes: x (B, *shape) -> same dtype and memory format. Raises ValueError for a reduction out of range.
    Initialised as the authors' code: W_h, b_h, W_mu, W_sigma ~ U(0, 0.01), b_mu = 0, b_sigma = 1.2.

    Differs from the official code in: pi instead of 3.14; noise on the features' device; mu and sigma in fp32 under autocast. There these
    parameters train at learning rate 1e-4 beside 0.1 for the network, here at the network's unless `optimizer.groups.advanced_dropout.lr`
    says otherwise. As in the code, and unlike the paper's derivation, there is no KL term.
    """

    def __init__(self, shape: tuple[int, ...], *, reduction: int = 16):
        super().__init__()
        check_shape(shape, ANY, what="advanced_dropout")
        size = math.prod(shape)
        if not 1 <= reduction <= size:
            raise ValueError(f"reduction must be between 1 and the {size} features of the place, got {reduction}")
        hidden = size // reduction
        self.weight_h = nn.Parameter(torch.rand(hidden, size) * 0.01)
        self.bias_h = nn.Parameter(torch.rand(1) * 0.01)
        self.weight_mu = nn.Parameter(torch.rand(1, hidden) * 0.01)
        self.bias_mu = nn.Parameter(torch.zeros(1))
        self.weight_sigma = nn.Parameter(torch.rand(1, hidden) * 0.01)
        self.bias_sigma = nn.Parameter(torch.full((1,), 1.2))

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        with torch.autocast(x.device.type, enabled=False):
            x_BD = x.flatten(1).to(self.weight_h.dtype)
            h_BR = F.linear(x_BD, self.weight_h) + self.bias_h
            mu = F.linear(h_BR, self.weight_mu, self.bias_mu).mean()
            sigma = F.softplus(F.linear(h_BR, self.weight_sigma, self.bias_sigma)).mean()
            mask = torch.sigmoid(mu + sigma * torch.randn_like(x, dtype=mu.dtype))
            mean_mask = torch.sigmoid(mu.detach() / torch.sqrt(1 + math.pi / 8 * sigma.detach().square()))
            return x * (mask / mean_mask).to(x.dtype)
