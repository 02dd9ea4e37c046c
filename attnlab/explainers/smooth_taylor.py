"""SmoothTaylor (Goh et al., 2004.10484).   Legend: R draws, B batch, C channels, H, W image size."""

import torch
from torch import Tensor, nn

from attnlab.explainers.attribution import channel_sum, normal_draws, score_gradient, weighted_gradients


class SmoothTaylor:
    """attribution = 1/R sum_r (x - z_r) * dy_c/dx (z_r),  z_r = x + sigma e_r,  e_r ~ N(0, I):  the first-order Taylor terms at R roots.

    By Stein's lemma its expectation is -sigma^2 E[d2 y_c / dx_i^2 (z)], a smoothed curvature: it is 0 for a linear network, and its sign is
    not for or against the class. So scores rank by magnitude (`signed`), as the authors' do. The map is the sum over channels. Noise of
    about sigma |dy/dx| / sqrt(R) a pixel remains.

    Args:
        sigma: in units of the normalised image; a tensor (B,) in `attribute` and `explain` gives each image its own.
        num_draws: R.
        seed: of the draws, which are the same for every image.

    Raises ValueError: num_draws < 1, sigma < 0.
    """

    signed = True

    def __init__(self, *, sigma: float = 0.5, num_draws: int = 150, seed: int = 0) -> None:
        if num_draws < 1 or not sigma >= 0:
            raise ValueError(f"num_draws must be at least 1 and sigma at least 0, got {num_draws} and {sigma}")
        self.sigma, self.num_draws, self.seed = sigma, num_draws, seed

    def attribute(
        self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor, *, noise_RBCHW: Tensor | None = None, sigma_B: Tensor | None = None
    ) -> Tensor:
        """(B, C, H, W), signed. noise_RBCHW: the draws e_r, in place of `num_draws` of the seed's."""
        noise = normal_draws(self.num_draws, x_BCHW, self.seed) if noise_RBCHW is None else noise_RBCHW.to(x_BCHW)
        sigma_B = torch.full_like(x_BCHW[:, 0, 0, 0], self.sigma) if sigma_B is None else sigma_B.to(x_BCHW)
        sigma_B111 = sigma_B[:, None, None, None]

        def points(rows: slice) -> tuple[Tensor, Tensor]:
            step = sigma_B111 * noise[rows]
            return x_BCHW + step, -step / len(noise)

        return weighted_gradients(score_gradient, network, x_BCHW, target_B, len(noise), points)

    def explain(
        self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor, *, noise_RBCHW: Tensor | None = None, sigma_B: Tensor | None = None
    ) -> Tensor:
        return channel_sum(self.attribute(network, x_BCHW, target_B, noise_RBCHW=noise_RBCHW, sigma_B=sigma_B))
