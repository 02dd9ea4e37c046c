"""MFPP, morphological fragmental perturbation pyramid (Yang et al., 2006.02659).

Legend: N masks, n of a chunk, L levels, K fragments of a level, B batch, C channels, H, W image size.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.explainers.attribution import blurred, rows_a_pass
from attnlab.explainers.rise import masked_scores
from attnlab.explainers.superpixels import segments_of

ZOOM = 3  # of the authors' crop: their offset of 2, plus 1
SHARED = 32  # masks of one draw of fragments in the authors' code: a batch


class Mfpp:
    """map = 1 / (N p) sum_n softmax(f(x * m_n))_c m_n,  as RISE, with masks m_n of the image's own fragments.

    Level i of L has SLIC superpixels, about num_segments * 2^i of them, and an equal share of the N masks; a mask keeps each fragment with
    probability p. What is masked takes the data's mean colour (0 after normalisation). The network is a black box: no gradients, any
    architecture. Maps lie in [0, 1/p]; only differences within a map tell anything; their error falls as 1 / sqrt(N).

    Args:
        num_masks: N; the authors' code: 20000.
        num_levels: L. num_segments: of the first level. keep: p.
        smoothing: standard deviation, in pixels, of a Gaussian that blurs the masks' edges; 0: none, as the authors.
        authors_crop: what the authors' code does, which undoes the alignment of fragments with the image: masks enlarged 3 times (bilinear)
            and cropped to the image at random, one draw of fragments for 32 masks, the sigmoid of the logit for the softmax, and no
            division by p. Default: masks as the paper describes them, each of its own draw.
        seed: of fragments and crops, drawn anew for every image, so that a map does not depend on its batch.
        mean, std: of the images' channels, given by name; SLIC is of the image before normalisation, in [0, 1].

    Raises ValueError: num_masks < num_levels, num_levels or num_segments < 1, keep outside (0, 1], smoothing < 0.
    """

    def __init__(
        self,
        *,
        num_masks: int = 20000,
        num_levels: int = 5,
        num_segments: int = 50,
        keep: float = 0.5,
        smoothing: float = 0.0,
        authors_crop: bool = False,
        seed: int = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        if num_levels < 1 or num_segments < 1 or num_masks < num_levels:
            given = f"{num_levels}, {num_segments} and {num_masks}"
            raise ValueError(f"num_levels and num_segments must be at least 1, num_masks at least num_levels, got {given}")
        if not 0 < keep <= 1 or not smoothing >= 0:
            raise ValueError(f"keep must be in (0, 1] and smoothing at least 0, got {keep} and {smoothing}")
        self.num_masks, self.num_levels, self.num_segments, self.keep = num_masks, num_levels, num_segments, keep
        self.smoothing, self.authors_crop, self.seed, self.mean, self.std = smoothing, authors_crop, seed, mean, std

    @torch.no_grad()
    def explain(
        self,
        network: nn.Module,
        x_BCHW: Tensor,
        target_B: Tensor,
        *,
        segments_LBHW: Sequence[Sequence[Tensor]] | None = None,
        masks_NHW: Tensor | None = None,
    ) -> Tensor:
        """Maps (B, 1, H, W). segments_LBHW: fragments numbered from 0, by level and image; masks_NHW: in [0, 1], for all images."""
        maps, scale = [], 1 if self.authors_crop else 1 / self.keep
        if masks_NHW is None and segments_LBHW is None:
            options = {"mean": self.mean, "std": self.std}
            segments_LBHW = [segments_of(x_BCHW, self.num_segments * 2**level, **options) for level in range(self.num_levels)]
        for b in range(len(x_BCHW)):
            one, num, total_1HW = slice(b, b + 1), 0, torch.zeros_like(x_BCHW[:1, 0])
            chunks = [masks_NHW] if segments_LBHW is None else self.masks([level[b] for level in segments_LBHW], rows_a_pass(x_BCHW[one]))
            for masks_nHW in chunks:
                scores = masked_scores(network, x_BCHW[one], target_B[one], masks_nHW, sigmoid=self.authors_crop)
                total_1HW, num = total_1HW + scores * len(masks_nHW), num + len(masks_nHW)
            maps.append(scale * total_1HW / num)
        return torch.stack(maps)

    def masks(self, segments_LHW: Sequence[Tensor], rows: int) -> Iterator[Tensor]:
        """The masks of one image, in chunks (n, H, W) of at most `rows`, float32 on the segments' device."""
        generator = torch.Generator().manual_seed(self.seed)
        for level, segments_HW in enumerate(segments_LHW):
            num = self.num_masks * (level + 1) // len(segments_LHW) - self.num_masks * level // len(segments_LHW)
            draws = -(-num // SHARED) if self.authors_crop else num
            kept_nK = torch.rand(draws, int(segments_HW.max()) + 1, generator=generator) < self.keep
            kept_nK = kept_nK.repeat_interleave(SHARED, 0)[:num] if self.authors_crop else kept_nK
            room = torch.tensor([(ZOOM - 1) * size + 1 for size in segments_HW.shape])
            corner_n2 = (torch.rand(num, 2, generator=generator) * room).long()
            for rows_n in torch.arange(num).split(rows):
                if self.authors_crop:
                    yield cropped_masks(segments_HW, kept_nK[rows_n], corner_n2[rows_n])
                else:
                    yield blurred(kept_nK[rows_n].to(segments_HW.device)[:, None, segments_HW].float(), self.smoothing)[:, 0]


def cropped_masks(segments_HW: Tensor, kept_nK: Tensor, corner_n2: Tensor) -> Tensor:
    """Masks (n, H, W) of kept fragments, enlarged ZOOM times and cropped at corner (row, column)."""
    height, width = segments_HW.shape
    kept_n1HW = kept_nK.to(segments_HW.device)[:, None, segments_HW].float()
    large_nHW = F.interpolate(kept_n1HW, scale_factor=ZOOM, mode="bilinear", align_corners=False)[:, 0]
    return torch.stack([one[i : i + height, j : j + width] for one, (i, j) in zip(large_nHW, corner_n2.tolist())])
