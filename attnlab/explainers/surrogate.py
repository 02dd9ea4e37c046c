"""What LIME, KernelSHAP and KLFDS share: the class's probability with superpixels hidden, and a map of one weight a superpixel.

Legend: B batch, C channels, H, W image size, K superpixels, N samples; z_NK: 1 where a superpixel is shown, 0 where it is hidden.
"""

from collections.abc import Callable, Sequence
from typing import get_args

import torch
from torch import Tensor, nn

from attnlab.explainers.attribution import logits_of, rows_a_pass, undisturbed
from attnlab.explainers.superpixels import Superpixels, segments_of

Score = Callable[[Tensor], Tensor]


class SuperpixelSurrogate:
    """Base of explainers that fit a simple model  g(z) ~ p_c(x with superpixels hidden where z = 0),  p_c the class's softmax probability.

    A hidden superpixel takes the data's mean colour (0 after normalisation). The network is a black box: no gradients, any architecture.
    Maps are signed, positive for the class, constant on each superpixel; scores rank by value, as occlusion's.

    Args:
        num_samples: passes an image.
        num_segments: superpixels an image, about.
        superpixels: grid (rectangles) or slic (see `attnlab.explainers.superpixels.slic`).
        seed: of the samples, which are drawn anew for every image, so that a map does not depend on its batch.
        mean, std: of the images' channels, given by name; SLIC is of the image before normalisation.

    `explain` takes segments in place of those. Raises ValueError: num_samples or num_segments < 2, unknown superpixels.
    """

    def __init__(
        self,
        *,
        num_samples: int,
        num_segments: int,
        superpixels: Superpixels,
        seed: int,
        mean: Sequence[float] | None,
        std: Sequence[float] | None,
    ) -> None:
        if num_samples < 2 or num_segments < 2:
            raise ValueError(f"num_samples and num_segments must be at least 2, got {num_samples} and {num_segments}")
        if superpixels not in get_args(Superpixels):
            raise ValueError(f"superpixels must be one of {', '.join(get_args(Superpixels))}, got {superpixels!r}")
        self.num_samples, self.num_segments, self.superpixels, self.seed = num_samples, num_segments, superpixels, seed
        self.mean, self.std = mean, std

    def weights(self, score: Score, segments_HW: Tensor) -> Tensor:
        """The superpixels' weights (K,) for one image; score(z_NK) -> p_N on the CPU."""
        raise NotImplementedError

    @torch.no_grad()
    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor, *, segments_BHW: Sequence[Tensor] | None = None) -> Tensor:
        """Maps (B, 1, H, W), signed. segments_BHW: one a image, numbered from 0."""
        if segments_BHW is None:
            segments_BHW = segments_of(x_BCHW, self.num_segments, superpixels=self.superpixels, mean=self.mean, std=self.std)
        maps = []
        with undisturbed(network, x_BCHW.device.type):
            for x_CHW, target, segments_HW in zip(x_BCHW, target_B.tolist(), segments_BHW):
                weights_K = self.weights(_score(network, x_CHW, target, segments_HW.to(x_CHW.device)), segments_HW.cpu())
                maps.append(weights_K.to(x_CHW)[segments_HW.to(x_CHW.device)])
        return torch.stack(maps)[:, None]


def _score(network: nn.Module, x_CHW: Tensor, target: int, segments_HW: Tensor) -> Score:
    def score(z_NK: Tensor) -> Tensor:
        parts = []
        for part_NK in z_NK.split(rows_a_pass(x_CHW[None])):
            shown_N1HW = part_NK.to(x_CHW)[:, segments_HW][:, None]
            parts.append(logits_of(network, shown_N1HW * x_CHW).softmax(1)[:, target])
        return torch.cat(parts).double().cpu()

    return score
