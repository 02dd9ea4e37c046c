"""LIME for images (Ribeiro et al., 1602.04938), by captum.   Legend: K superpixels, N samples, H, W image size."""

from collections.abc import Sequence

import torch
from torch import Tensor

from attnlab.explainers.superpixels import Superpixels
from attnlab.explainers.surrogate import Score, SuperpixelSurrogate
from attnlab.explainers.through_captum import check_captum, ridge_surrogate


class Lime(SuperpixelSurrogate):
    """weights w of  min_{w, b} sum_i pi_i (p_c(z_i) - w z_i - b)^2 + alpha |w|^2,  pi = exp(-D(1, z)^2 / (2 width^2)).

    D is the cosine distance; z_i shows every superpixel with probability 1/2; p_c(z): see SuperpixelSurrogate.

    Args:
        num_samples, num_segments, superpixels, seed, mean, std: of SuperpixelSurrogate. The authors: 1000 samples, quickshift.
        kernel_width: of pi, the authors' 0.25.
        alpha: of the ridge regression, the authors' 1.

    Captum's own defaults differ: a Lasso, whose penalty sets most weights of a probability to 0, and distances of pixels. Unlike the
    authors' code the unperturbed image is no sample. Raises ValueError: captum is not installed; kernel_width or alpha <= 0.
    """

    def __init__(
        self,
        *,
        num_samples: int = 1000,
        num_segments: int = 49,
        superpixels: Superpixels = "grid",
        kernel_width: float = 0.25,
        alpha: float = 1.0,
        seed: int = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        if not kernel_width > 0 or not alpha > 0:
            raise ValueError(f"kernel_width and alpha must be positive, got {kernel_width} and {alpha}")
        check_captum("lime")
        super().__init__(num_samples=num_samples, num_segments=num_segments, superpixels=superpixels, seed=seed, mean=mean, std=std)
        self.kernel_width, self.alpha = kernel_width, alpha

    def weights(self, score: Score, segments_HW: Tensor) -> Tensor:
        num = int(segments_HW.max()) + 1
        options = {"alpha": self.alpha, "num_samples": self.num_samples, "seed": self.seed}
        return ridge_surrogate(score, num, similarity=lambda z_NK: similarity(z_NK, self.kernel_width), **options)


def similarity(z_NK: Tensor, width: float) -> Tensor:
    """exp(-D^2 / (2 width^2)) (N,), D = 1 - cos(z, 1) = 1 - sqrt(share of z that is shown)."""
    return torch.exp(-((1 - z_NK.double().mean(1).sqrt()) ** 2) / (2 * width**2))
