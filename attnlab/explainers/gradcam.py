"""Grad-CAM (Selvaraju et al., 1610.02391): feature maps weighted by the mean gradient of a class score.

Legend: B batch, C channels of the image, K channels of the feature maps, H, W image size, h, w size of the feature maps.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.config.suggest import nearest
from attnlab.placement.places import places_of

BACKBONE = "backbone."


class GradCAM:
    """alpha_k = mean over (h, w) of dy_c / dA_k,  map = ReLU( sum_k alpha_k A_k ),  y_c the logit of the class, A the feature maps `at`.

    The map is brought to the image's size by bilinear interpolation (align_corners=False); it is not normalised, so maps of different
    images and classes can be compared. The network runs in eval mode, in the precision of its weights (no autocast); modes,
    `requires_grad`, `.grad` and hooks are afterwards what they were.

    Args:
        at: a place of the backbone that gives feature maps (K, h, w). None: the last one whose maps are larger than one pixel, which in
            a ResNet is `layer4`, its last residual block with the ReLU, as in the paper.

    Raises ValueError: no such place, a place without feature maps, one that runs several times in a pass; a network that is no
    `attnlab.network.Network` (an ensemble has no one place: explain its members).
    """

    def __init__(self, *, at: str | None = None) -> None:
        self.at = at

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        """Maps (B, 1, H, W) >= 0, larger = more relevant for class `target_B` (B,)."""
        place = self.place(network, tuple(x_BCHW.shape[1:]))
        values: list[Tensor] = []

        def cut(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            if values:
                raise ValueError(f"GradCAM: at={place}: runs several times in one pass; choose a place that runs once")
            values.append(output.detach().requires_grad_())  # what comes before needs no graph
            return values[0].clone()  # the next module may work in place

        modes = {module: module.training for module in network.modules()}
        handle = network.get_submodule(BACKBONE + place).register_forward_hook(cut)
        try:
            network.eval()
            with torch.enable_grad(), torch.autocast(x_BCHW.device.type, enabled=False), torch.compiler.set_stance("force_eager"):
                logits_BK = network(x_BCHW).logits
                score = logits_BK.gather(1, target_B[:, None]).sum()
                (gradient_BKhw,) = torch.autograd.grad(score, values, allow_unused=True)
        finally:
            handle.remove()
            for module, mode in modes.items():
                module.training = mode
        if gradient_BKhw is None:
            raise ValueError(f"GradCAM: at={place}: the logits do not depend on it; choose a place on the way to them")
        map_B1hw = grad_cam(values[0].detach(), gradient_BKhw).relu()
        return F.interpolate(map_B1hw, size=x_BCHW.shape[2:], mode="bilinear", align_corners=False)

    def place(self, network: nn.Module, shape: tuple[int, ...]) -> str:
        """The name of the place in the backbone that the maps are of."""
        if not hasattr(network, "backbone") or len(shape) != 3:
            raise ValueError(f"GradCAM needs one network on images, got {type(network).__name__} on values of shape {shape}")
        seen = {name.removeprefix(BACKBONE): place for name, place in places_of(network, shape).items() if name.startswith(BACKBONE)}
        maps = {name: one for name, place in seen.items() if len(place.outputs) == 1 and len(one := next(iter(place.outputs)) or ()) == 3}
        if self.at is None:
            large = [name for name, (_, high, wide) in maps.items() if high * wide > 1]
            if not large:
                raise ValueError("GradCAM: no place of the backbone gives feature maps of more than one pixel")
            return max(large, key=lambda name: seen[name].end)
        if self.at not in seen:
            raise ValueError(f"GradCAM: at={self.at}: there is no such place; {nearest(self.at, list(maps))}")
        if self.at not in maps:
            raise ValueError(f"GradCAM: at={self.at}: gives no feature maps (K, h, w) of one size; choose a convolutional place")
        return self.at


def grad_cam(maps_BKhw: Tensor, gradient_BKhw: Tensor) -> Tensor:
    """sum_k mean_hw(gradient_k) maps_k, (B, 1, h, w), before the ReLU."""
    return (gradient_BKhw.mean((2, 3), keepdim=True) * maps_BKhw).sum(1, keepdim=True)
