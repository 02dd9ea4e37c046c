"""KernelSHAP (Lundberg and Lee, 1705.07874), by captum.   Legend: K superpixels, N samples, H, W image size."""

from collections.abc import Sequence

from torch import Tensor

from attnlab.explainers.superpixels import Superpixels
from attnlab.explainers.surrogate import Score, SuperpixelSurrogate
from attnlab.explainers.through_captum import check_captum, shapley_surrogate


class KernelShap(SuperpixelSurrogate):
    """Shapley values of the superpixels, by the regression whose weights are (K - 1) / (C(K, s) s (K - s)), s superpixels shown.

    They sum to p_c(x) - p_c(all hidden), up to float32; p_c(z): see SuperpixelSurrogate. Sizes s and sets of that size are drawn by these
    weights, so the error falls as 1 / sqrt(num_samples); fewer samples than superpixels leave the regression undetermined.

    Args:
        num_samples, num_segments, superpixels, seed, mean, std: of SuperpixelSurrogate.

    Raises ValueError: captum is not installed; num_samples <= num_segments.
    """

    def __init__(
        self,
        *,
        num_samples: int = 1000,
        num_segments: int = 49,
        superpixels: Superpixels = "grid",
        seed: int = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        if num_samples <= num_segments:
            raise ValueError(f"num_samples must be larger than num_segments, got {num_samples} and {num_segments}")
        check_captum("kernel_shap")
        super().__init__(num_samples=num_samples, num_segments=num_segments, superpixels=superpixels, seed=seed, mean=mean, std=std)

    def weights(self, score: Score, segments_HW: Tensor) -> Tensor:
        return shapley_surrogate(score, int(segments_HW.max()) + 1, num_samples=self.num_samples, seed=self.seed)
