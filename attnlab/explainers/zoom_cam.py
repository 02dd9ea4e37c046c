"""Zoom-CAM (Shi et al., 2010.08644).   Legend: B batch, C channels of the image, K of feature maps, H, W image size, h, w a map's size."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.config.suggest import nearest
from attnlab.explainers.attribution import rows_a_pass
from attnlab.explainers.feature_maps import map_places, maps_and_gradients
from attnlab.explainers.hirescam import hires_cam
from attnlab.placement.places import matches


class ZoomCAM:
    """M_l = ReLU( sum_k dy_c / dA^l_k * A^l_k ),  map = max over places l of up( (M_l - min M_l) / (max M_l - min M_l) )

    up is bilinear interpolation to the image's size (align_corners=False); a constant M_l counts as 0, so maps lie in [0, 1]. One place
    gives HiResCAM, normalised; a further place never lowers a map. Shallow places add edges.

    Args:
        at: names or globs of places of the backbone (`[layer*]`: a ResNet's stages). None: every nn.ReLU that runs once and gives feature
            maps of more than one pixel, as the paper's 13 ReLUs of VGG16.

    Differs from the authors' code in: one interpolation a place, where it goes from the deepest place up in steps of 2; their main script
    cannot run. Raises ValueError: a pattern that matches no place with feature maps; no nn.ReLU to choose; else as ClassActivationMap.
    """

    def __init__(self, *, at: str | Sequence[str] | None = None) -> None:
        self.at = [at] if isinstance(at, str) else at

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        """Maps (B, 1, H, W) in [0, 1], larger = more relevant for class `target_B` (B,)."""
        places = self.places(network, tuple(x_BCHW.shape[1:]))
        parts = []
        for x, target in zip(x_BCHW.split(rows := rows_a_pass(x_BCHW)), target_B.split(rows)):
            found = maps_and_gradients(network, x, target, places, who=type(self).__name__)
            zoomed = [_zoomed(hires_cam(*pair).relu(), x.shape[2:]) for pair in found]
            parts.append(torch.stack(zoomed).amax(0))
        return torch.cat(parts)

    def places(self, network: nn.Module, shape: tuple[int, ...]) -> list[str]:
        """The names of the places in the backbone that are fused."""
        seen, maps = map_places(network, shape, who=type(self).__name__)
        large = [name for name, (_, high, wide) in maps.items() if high * wide > 1]
        if self.at is None:
            found = [name for name in large if issubclass(seen[name].module, nn.ReLU) and seen[name].calls == 1]
            if not found:
                raise ValueError("ZoomCAM: no nn.ReLU of the backbone runs once and gives feature maps; name places: at=[layer1,layer2]")
            return found
        for pattern in self.at:
            if not matches(pattern, large):
                raise ValueError(f"ZoomCAM: at={pattern}: matches no place with feature maps; {nearest(pattern, large)}")
        return list(dict.fromkeys(name for pattern in self.at for name in matches(pattern, large)))


def _zoomed(map_B1hw: Tensor, size: tuple[int, ...]) -> Tensor:
    low, high = map_B1hw.amin((2, 3), keepdim=True), map_B1hw.amax((2, 3), keepdim=True)
    share = torch.where(high > low, (map_B1hw - low) / torch.where(high > low, high - low, 1), 0)
    return F.interpolate(share, size=size, mode="bilinear", align_corners=False)
