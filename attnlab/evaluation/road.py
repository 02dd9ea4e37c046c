"""ROAD: what a network says once pixels are removed without leaving a trace (Rong et al., 2202.00449).

Legend: B batch, C channels, H, W image size, F removed shares.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.explainers.attribution import logits_of, rows_a_pass, undisturbed

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
KERNEL = ((1 / 12, 1 / 6, 1 / 12), (1 / 6, 0.0, 1 / 6), (1 / 12, 1 / 6, 1 / 12))  # direct neighbours 1/6, diagonal ones 1/12


def road(
    network: nn.Module,
    x_BCHW: Tensor,
    map_B1HW: Tensor,
    target_B: Tensor,
    *,
    shares: Sequence[float] = SHARES,
    noise: float = 0.01,
    seed: int = 0,
) -> Tensor:
    """mean over shares of ( p_c(least relevant removed) - p_c(most relevant removed) ) / 2, (B,) in [-0.5, 0.5]; higher is better.

    p_c is the class's probability after that share of pixels was removed by `impute`, which leaves no hard edges that a network could read
    the removed shape from, as deletion does. A map that ranks by chance scores about 0. Both orders together, as pytorch-grad-cam's
    ROADCombined has it; the paper counts accuracy where we follow the probability (our reading, as one image has no accuracy).

    It cannot tell a map that misses half of the object from a network that needs only the other half; and where the imputed image still
    looks like the class, all explainers are near 0.

    Args:
        map_B1HW: larger = more relevant; of pixels with equal relevance the first in reading order goes first.
        shares: of pixels removed, each in (0, 1).
        noise: standard deviation of the noise on imputed pixels, in units of the normalised image.

    Raises ValueError: a share outside (0, 1).
    """
    if not all(0 < share < 1 for share in shares):
        raise ValueError(f"shares must be in (0, 1), got {tuple(shares)}")
    number = map_B1HW.flatten(1).shape[1]
    rank_B1HW = map_B1HW.flatten(1).argsort(dim=1, descending=True, stable=True).argsort(1).view_as(map_B1HW)
    generator = torch.Generator().manual_seed(seed)
    noise_CHW = noise * torch.randn(x_BCHW.shape[1:], generator=generator).to(x_BCHW)
    total_B = x_BCHW.new_zeros(len(x_BCHW))
    with torch.no_grad(), undisturbed(network, x_BCHW.device.type):
        for share in shares:
            num = min(max(round(share * number), 1), number - 1)
            for sign, gone_B1HW in ((-1, rank_B1HW < num), (1, rank_B1HW >= number - num)):
                filled = torch.where(gone_B1HW, impute(x_BCHW, gone_B1HW) + noise_CHW, x_BCHW)
                p_BK = torch.cat([logits_of(network, part).softmax(1) for part in filled.split(rows_a_pass(x_BCHW))])
                total_B += sign * p_BK.gather(1, target_B[:, None])[:, 0]
    return total_B / (2 * len(shares))


def impute(x_BCHW: Tensor, gone_B1HW: Tensor, *, tolerance: float = 1e-5, most: int = 1000) -> Tensor:
    """Removed pixels as the weighted mean of their eight neighbours, removed ones too:  sum_j w_ij (z_i - z_j) = 0,  z = x where kept.

    w is 1/6 for direct and 1/12 for diagonal neighbours, 0 beyond the border. The system is symmetric and positive definite as soon as one
    pixel of an image is kept; all images and channels are solved at once by conjugate gradients, in fp64, until the residual is
    `tolerance` of the right side, or `most` rounds. An image without a kept pixel becomes 0.
    """
    gone = gone_B1HW.double()
    x = x_BCHW.double()
    kernel = torch.tensor(KERNEL, dtype=torch.float64, device=x.device)[None, None]
    weight_11HW = F.conv2d(torch.ones_like(gone[:1]), kernel, padding=1)

    def neighbours(z: Tensor) -> Tensor:
        return F.conv2d(z.flatten(0, 1)[:, None], kernel, padding=1).view_as(z)

    def apply(z: Tensor) -> Tensor:
        return gone * (weight_11HW * z - neighbours(z))

    with torch.autocast(x.device.type, enabled=False):
        right = gone * neighbours((1 - gone) * x)
        z, residual = torch.zeros_like(x), right
        direction, square = residual, residual.square().sum((2, 3), keepdim=True)
        enough = tolerance**2 * square
        for _ in range(most):
            if not (square > enough).any():
                break
            moved = apply(direction)
            curve = (direction * moved).sum((2, 3), keepdim=True)
            step = torch.where(curve > 0, square / torch.where(curve > 0, curve, 1), 0)
            z, residual = z + step * direction, residual - step * moved
            last, square = square, residual.square().sum((2, 3), keepdim=True)
            direction = residual + torch.where(last > 0, square / torch.where(last > 0, last, 1), 0) * direction
    return torch.where(gone_B1HW, z, x).to(x_BCHW)
