"""Class activation maps: feature maps of a place and the gradient of a class score by them, one pass for any number of places.

Legend: B batch, C channels of the image, K channels of the feature maps, H, W image size, h, w size of the feature maps.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.config.suggest import nearest
from attnlab.explainers.attribution import logits_of, rows_a_pass, undisturbed
from attnlab.placement.places import Place, places_of

BACKBONE = "backbone."


class ClassActivationMap:
    """Base of the methods that weigh the feature maps of one place:  map = ReLU( combine(A, dy_c / dA) ),  y_c the logit of the class.

    The map is brought to the image's size by bilinear interpolation (align_corners=False); it is not normalised, so maps of different
    images and classes can be compared. The network runs in eval mode, in the precision of its weights (no autocast); modes,
    `requires_grad`, `.grad` and hooks are afterwards what they were. Whether activations are modules or functions, in place or not, is all
    the same, as the place is a module.

    Args:
        at: a place of the backbone that gives feature maps (K, h, w). None: the last one whose maps are larger than one pixel, which in
            a ResNet is `layer4`, its last residual block with the ReLU, as in the Grad-CAM paper.

    Raises ValueError: no such place, a place without feature maps, one that runs several times in a pass; a network that is no
    `attnlab.network.Network` (an ensemble has no one place: explain its members).
    """

    def __init__(self, *, at: str | None = None) -> None:
        self.at = at

    def combine(self, maps_BKhw: Tensor, gradient_BKhw: Tensor) -> Tensor:
        """(B, 1, h, w), before the ReLU."""
        raise NotImplementedError

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        """Maps (B, 1, H, W) >= 0, larger = more relevant for class `target_B` (B,)."""
        place = self.place(network, tuple(x_BCHW.shape[1:]))
        parts = []
        for x, target in zip(x_BCHW.split(rows := rows_a_pass(x_BCHW)), target_B.split(rows)):
            ((maps_BKhw, gradient_BKhw),) = maps_and_gradients(network, x, target, [place], who=type(self).__name__)
            parts.append(self.combine(maps_BKhw, gradient_BKhw).relu())
        return F.interpolate(torch.cat(parts), size=x_BCHW.shape[2:], mode="bilinear", align_corners=False)

    def place(self, network: nn.Module, shape: tuple[int, ...]) -> str:
        """The name of the place in the backbone that the maps are of."""
        seen, maps = map_places(network, shape, who=(who := type(self).__name__))
        if self.at is None:
            large = [name for name, (_, high, wide) in maps.items() if high * wide > 1]
            if not large:
                raise ValueError(f"{who}: no place of the backbone gives feature maps of more than one pixel")
            return max(large, key=lambda name: seen[name].end)
        if self.at not in seen:
            raise ValueError(f"{who}: at={self.at}: there is no such place; {nearest(self.at, list(maps))}")
        if self.at not in maps:
            raise ValueError(f"{who}: at={self.at}: gives no feature maps (K, h, w) of one size; choose a convolutional place")
        return self.at


def map_places(network: nn.Module, shape: tuple[int, ...], *, who: str) -> tuple[dict[str, Place], dict[str, tuple[int, ...]]]:
    """All places of the backbone that run on images of `shape`, and the shapes (K, h, w) of those that give feature maps of one size."""
    if not hasattr(network, "backbone") or len(shape) != 3:
        raise ValueError(f"{who} needs one network on images, got {type(network).__name__} on values of shape {shape}")
    seen = {name.removeprefix(BACKBONE): place for name, place in places_of(network, shape).items() if name.startswith(BACKBONE)}
    return seen, {name: one for name, place in seen.items() if len(place.outputs) == 1 and len(one := next(iter(place.outputs)) or ()) == 3}


def maps_and_gradients(
    network: nn.Module, x_BCHW: Tensor, target_B: Tensor, places: Sequence[str], *, who: str
) -> list[tuple[Tensor, Tensor]]:
    """(A, dy_c / dA) of every place, both (B, K, h, w), from one pass forth and back."""
    values: dict[str, Tensor] = {}

    def cut(place: str) -> Any:
        def hook(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
            if place in values:
                raise ValueError(f"{who}: at={place}: runs several times in one pass; choose a place that runs once")
            if len(places) == 1 or not output.requires_grad:
                output = output.detach().requires_grad_()  # what comes before needs no graph
            values[place] = output
            return output.clone()  # the next module may work in place

        return hook

    handles = [network.get_submodule(BACKBONE + place).register_forward_hook(cut(place)) for place in places]
    try:
        with undisturbed(network, x_BCHW.device.type), torch.enable_grad():
            score = logits_of(network, x_BCHW).gather(1, target_B[:, None]).sum()
            gradients = torch.autograd.grad(score, [values[place] for place in places], allow_unused=True)
    finally:
        for handle in handles:
            handle.remove()
    for place, gradient in zip(places, gradients):
        if gradient is None:
            raise ValueError(f"{who}: at={place}: the logits do not depend on it; choose a place on the way to them")
    return [(values[place].detach(), gradient) for place, gradient in zip(places, gradients)]
