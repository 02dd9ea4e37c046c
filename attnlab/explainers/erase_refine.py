"""Class activation maps refined by erasing (our reading of Zhao, Li and You, ICPR 2020).   Legend: B batch, C channels, H, W image size."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attnlab.explainers.attribution import logits_of, rows_a_pass, undisturbed
from attnlab.explainers.zoom_cam import ZoomCAM


class EraseAndRefine:
    """map = max over rounds r of  p_r / p_0 * M_r,  M_r = ZoomCAM(x_r),  x_0 = x,  x_{r+1} = x_r erased where M_r >= threshold.

    What is erased takes the data's mean colour (0 after normalisation). p_r is the class's softmax probability on x_r, at most p_0. A
    network's first map is of the most telling part of an object; with that part erased the next one finds further parts, and counts as much
    as the class is still seen. Maps lie in [0, 1]; rounds = 1 is Zoom-CAM, and a further round never lowers a map.

    Our reading: the paper localises by maps of several levels and refines the classifier by images whose lesions are erased. Here the
    trained network is left as it is and the map is refined, so there is no retraining.

    Args:
        rounds: maps an image.
        threshold: on M_r in [0, 1], as Zoom-CAM gives it.
        at: places of the maps, see ZoomCAM.

    Raises ValueError: rounds < 1, threshold outside (0, 1]; else as ZoomCAM.
    """

    def __init__(self, *, rounds: int = 3, threshold: float = 0.5, at: str | Sequence[str] | None = None) -> None:
        if rounds < 1 or not 0 < threshold <= 1:
            raise ValueError(f"rounds must be at least 1 and threshold in (0, 1], got {rounds} and {threshold}")
        self.rounds, self.threshold, self.zoom_cam = rounds, threshold, ZoomCAM(at=at)

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        """Maps (B, 1, H, W) in [0, 1]."""
        erased_BCHW, found_B1HW = x_BCHW, torch.zeros_like(x_BCHW[:, :1])
        first_B = self._probability(network, x_BCHW, target_B)
        for _ in range(self.rounds):
            map_B1HW = self.zoom_cam.explain(network, erased_BCHW, target_B)
            share_B = (self._probability(network, erased_BCHW, target_B) / first_B).clamp(max=1)
            found_B1HW = torch.maximum(found_B1HW, share_B[:, None, None, None] * map_B1HW)
            erased_BCHW = torch.where(map_B1HW >= self.threshold, 0, erased_BCHW)
        return found_B1HW

    @torch.no_grad()
    def _probability(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        with undisturbed(network, x_BCHW.device.type):
            logits_BK = torch.cat([logits_of(network, x) for x in x_BCHW.split(rows_a_pass(x_BCHW))]).to(x_BCHW)
        return logits_BK.softmax(1).gather(1, target_B[:, None])[:, 0].clamp(min=torch.finfo(x_BCHW.dtype).tiny)
