"""SmoothGrad (Smilkov et al., 1706.03825).   Legend: R draws, B batch, C channels, H, W image size."""

from torch import Tensor, nn

from attnlab.explainers.attribution import channel_sum, normal_draws, score_gradient, weighted_gradients


class SmoothGrad:
    """attribution = 1/R sum_r dy_c/dx (x + s e_r),  e_r ~ N(0, I),  s = noise_level * (max x - min x) of each image.

    The map is its sum over channels, signed; scores rank by magnitude (`signed`).

    Args:
        noise_level: the paper's 10 to 20 %.
        num_draws: R.
        seed: of the noise, which is the same for every image.

    Nothing is squared. Raises ValueError: num_draws < 1, noise_level < 0.
    """

    signed = True

    def __init__(self, *, noise_level: float = 0.15, num_draws: int = 50, seed: int = 0) -> None:
        if num_draws < 1 or not noise_level >= 0:
            raise ValueError(f"num_draws must be at least 1 and noise_level at least 0, got {num_draws} and {noise_level}")
        self.noise_level, self.num_draws, self.seed = noise_level, num_draws, seed

    def attribute(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor, *, noise_RBCHW: Tensor | None = None) -> Tensor:
        """(B, C, H, W), signed. noise_RBCHW: the draws e_r, in place of `num_draws` of the seed's."""
        noise = normal_draws(self.num_draws, x_BCHW, self.seed) if noise_RBCHW is None else noise_RBCHW.to(x_BCHW)
        scale_B111 = self.noise_level * (x_BCHW.amax((1, 2, 3), keepdim=True) - x_BCHW.amin((1, 2, 3), keepdim=True))

        def points(rows: slice) -> tuple[Tensor, Tensor]:
            return x_BCHW + scale_B111 * noise[rows], x_BCHW.new_tensor(1 / len(noise))

        return weighted_gradients(score_gradient, network, x_BCHW, target_B, len(noise), points)

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor, *, noise_RBCHW: Tensor | None = None) -> Tensor:
        return channel_sum(self.attribute(network, x_BCHW, target_B, noise_RBCHW=noise_RBCHW))
