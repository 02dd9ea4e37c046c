"""SmoothTaylor (Goh et al., 2004.10484).   Legend: R draws, B batch, C channels, H, W image size."""

from collections.abc import Callable

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

    Adaptive noising, a sigma for each image: `adaptive_sigma`. Raises ValueError: num_draws < 1, sigma < 0.
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


def adaptive_sigma(
    objective: Callable[[Tensor], Tensor],
    start_B: Tensor,
    *,
    step: float = 0.1,
    decay: float = 0.9,
    max_stops: int = 3,
    max_iterations: int = 20,
) -> tuple[Tensor, Tensor]:
    """The paper's adaptive noising: the sigma of each image (B,) that makes an objective small, and its value (B,).

    objective(sigma_B) -> (B,), lower is better: AUPC or AUTVC of the maps with these sigmas. start_B: the authors' is mean |x|. In every
    iteration |sigma + step| is tried; if worse, sigma moves to |sigma - step|, else there. A move to something worse multiplies the
    step by `decay`, and the image ends at the one after `max_stops` such moves in a row. It is a walk that forgets, so the best is kept.

        maps = lambda sigma_B: smooth_taylor.explain(network, x, target, sigma_B=sigma_B)
        sigma_B, _ = adaptive_sigma(lambda sigma_B: autvc(maps(sigma_B)), x.abs().mean((1, 2, 3)))

    Differs from the authors' code in: all images walk together; an image that has ended stays where it is.
    """
    now_B, value_B = start_B, objective(start_B)
    best_B, least_B = now_B, value_B
    step_B, stops_B = torch.full_like(start_B, step), torch.zeros_like(start_B)
    ended_B = torch.zeros_like(start_B, dtype=torch.bool)
    for _ in range(max_iterations):
        if ended_B.all():
            break
        moved_B = (now_B + step_B).abs()
        found_B = objective(torch.where(ended_B, now_B, moved_B))
        back_B = (found_B > value_B) & ~ended_B
        if back_B.any():
            moved_B = torch.where(back_B, (now_B - step_B).abs(), moved_B)
            found_B = torch.where(back_B, objective(torch.where(ended_B, now_B, moved_B)), found_B)
        worse_B = (found_B > value_B) & ~ended_B
        ended_B = ended_B | (worse_B & (stops_B >= max_stops))
        stops_B = torch.where(worse_B, stops_B + 1, 0)
        step_B = torch.where(worse_B, step_B * decay, step_B)
        now_B, value_B = torch.where(ended_B, now_B, moved_B), torch.where(ended_B, value_B, found_B)
        better_B = (value_B < least_B) & ~ended_B
        best_B, least_B = torch.where(better_B, now_B, best_B), torch.where(better_B, value_B, least_B)
    return best_B, least_B
