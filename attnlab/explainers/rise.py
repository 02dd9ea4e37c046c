"""RISE (Petsiuk et al., 1806.07421).   Legend: N masks, B batch, C channels, H, W image size, K classes, s cells a side."""

import math

import torch
from torch import Tensor, nn

from attnlab.explainers.attribution import logits_of, rows_a_pass, undisturbed


class Rise:
    """map = 1 / (N p) sum_n softmax(f(x * m_n))_c m_n:  the mean mask, weighted by the class's probability where it is laid on the image.

    A mask is a grid of s x s cells, each kept with probability p, upsampled bilinearly to (s + 1) cells of ceil(H / s) x ceil(W / s) pixels
    and cropped to the image at a random shift of less than a cell. What is masked takes the data's mean colour (0 after normalisation). The
    network is a black box: no gradients, any architecture. Maps lie in [0, 1/p]; only differences within a map tell anything. Their error
    falls as 1 / sqrt(N), and few masks give blobs where there is nothing.

    Args:
        num_masks: N; 8000 in the paper for a ResNet-50 at 224 pixels, 4000 for VGG16.
        num_cells: s; 7 in the paper.
        keep: p.
        seed: of the masks, which are the same for every image.

    Differs from the authors' code in: masks may be wider than high. Raises ValueError: num_masks or num_cells < 1, keep outside (0, 1].
    """

    def __init__(self, *, num_masks: int = 8000, num_cells: int = 7, keep: float = 0.5, seed: int = 0) -> None:
        if num_masks < 1 or num_cells < 1 or not 0 < keep <= 1:
            raise ValueError(f"num_masks and num_cells must be at least 1, keep in (0, 1], got {num_masks}, {num_cells} and {keep}")
        self.num_masks, self.num_cells, self.keep, self.seed = num_masks, num_cells, keep, seed

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor, *, masks_NHW: Tensor | None = None) -> Tensor:
        """Maps (B, 1, H, W). masks_NHW: masks in [0, 1], in place of `num_masks` of the seed's."""
        masks_NHW = self.masks(x_BCHW.shape[2], x_BCHW.shape[3]) if masks_NHW is None else masks_NHW
        return masked_scores(network, x_BCHW, target_B, masks_NHW)[:, None] / self.keep

    def masks(self, height: int, width: int) -> Tensor:
        """`num_masks` masks (N, H, W), float32 on the CPU."""
        generator, s = torch.Generator().manual_seed(self.seed), self.num_cells
        grid_Nss = torch.rand(self.num_masks, s, s, generator=generator) < self.keep
        cells = torch.tensor([math.ceil(height / s), math.ceil(width / s)])
        shift_N2 = (torch.rand(self.num_masks, 2, generator=generator) * cells).long()
        return grid_masks(grid_Nss, shift_N2, height, width)


def grid_masks(grid_Nss: Tensor, shift_N2: Tensor, height: int, width: int) -> Tensor:
    """Masks (N, H, W) of kept cells (N, s, s) and shifts (N, 2), in pixels down and to the right and less than a cell.

    Bilinear with pixel centres at halves; beyond the outermost cells' centres the grid is mirrored at them, as skimage.transform.resize has
    it with mode="reflect" (which torch's interpolation has not).
    """
    s = grid_Nss.shape[1]
    down_NHs, across_NWs = (
        _bilinear(s, (s + 1) * math.ceil(size / s))[shift_N[:, None] + torch.arange(size)].float()
        for size, shift_N in ((height, shift_N2[:, 0].cpu()), (width, shift_N2[:, 1].cpu()))
    )
    with torch.autocast("cpu", enabled=False):  # masks are exact, whatever the network runs in
        return down_NHs @ grid_Nss.cpu().float() @ across_NWs.mT


def _bilinear(cells: int, size: int) -> Tensor:
    """Weights (size, cells), each row of which is the share of every cell in a pixel."""
    at = (torch.arange(size, dtype=torch.float64) + 0.5) * cells / size - 0.5
    low = at.floor().long()
    weights = torch.zeros(size, cells, dtype=torch.float64)
    for index, share in ((low, 1 - (at - low)), (low + 1, at - low)):
        index = (cells - 1) - ((cells - 1) - index.abs()).abs()  # mirrored at both ends
        weights.scatter_add_(1, index[:, None].clamp(min=0), share[:, None])
    return weights


@torch.no_grad()
def masked_scores(network: nn.Module, x_BCHW: Tensor, target_B: Tensor, masks_NHW: Tensor, *, sigmoid: bool = False) -> Tensor:
    """1 / N sum_n p_n m_n, (B, H, W), p_n the class's probability (softmax, or sigmoid of its logit) of x * m_n, in chunks of masks."""
    num, step = len(masks_NHW), max(1, rows_a_pass(x_BCHW) // len(x_BCHW))
    total_BHW = torch.zeros_like(x_BCHW[:, 0])
    with undisturbed(network, x_BCHW.device.type):
        for masks_nHW in masks_NHW.split(step):
            masks_nHW = masks_nHW.to(x_BCHW)
            rows = (masks_nHW[:, None, None] * x_BCHW).flatten(0, 1)
            logits = torch.cat([logits_of(network, part) for part in rows.split(rows_a_pass(x_BCHW))])
            p_nBK = (logits.sigmoid() if sigmoid else logits.softmax(1)).view(len(masks_nHW), len(x_BCHW), -1)
            p_nB = p_nBK.gather(2, target_B.expand(len(masks_nHW), -1)[..., None])[..., 0].to(total_BHW.dtype)
            total_BHW += torch.einsum("nb,nhw->bhw", p_nB, masks_nHW)
    return total_BHW / num
