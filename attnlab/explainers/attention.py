"""The attention map of a placed module as an explanation.   Legend: B batch, C channels, H, W image size, h, w size of a map."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.config.suggest import nearest
from attnlab.explainers.attribution import rows_a_pass, undisturbed

NONE = "attention: no placed module of this network keeps a map: choose attention=rect, or another explainer"


class Attention:
    """The map that a placed module (rect, position, ltpa, ...) keeps of its forward pass, at the image's size (bilinear).

    It is the same for every class, and it says where the network may look, not what it makes of what it sees there.

    `parts` are the maps of all placed modules that keep one, each an explainer of its own.

    Args:
        of: the key of the placed module (`rect@layer3`). None: the one module that keeps a map; as `parts`, all of them.

    Raises ValueError: no placed module keeps a map; `of` is none of them; several of them and `of` is None.
    """

    def __init__(self, *, of: str | None = None) -> None:
        self.of = of

    def parts(self, network: nn.Module) -> "dict[str, Attention]":
        """An explainer a placed module, by the module's key."""
        if self.of is not None:
            return {self.of: self}
        placed = getattr(network, "placed", None)
        keys = [key for key, component in placed.components() if hasattr(component, "map")] if placed else []
        if not keys:
            raise ValueError(NONE)
        return {key: Attention(of=key) for key in keys}

    @torch.no_grad()
    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        parts = []
        with undisturbed(network, x_BCHW.device.type):
            for x in x_BCHW.split(rows_a_pass(x_BCHW)):
                network(x)
                parts.append(self._chosen(network.maps() if hasattr(network, "maps") else {}).detach())
        return F.interpolate(torch.cat(parts).to(x_BCHW), size=x_BCHW.shape[2:], mode="bilinear", align_corners=False)

    def _chosen(self, maps: dict[str, Tensor]) -> Tensor:
        if not maps:
            raise ValueError(NONE)
        if self.of is None and len(maps) > 1:
            raise ValueError(f"attention: several placed modules keep a map: of={next(iter(maps))} chooses one of {', '.join(maps)}")
        key = next(iter(maps)) if self.of is None else self.of
        if key not in maps:
            raise ValueError(f"attention: of={key}: no such placed module keeps a map; {nearest(key, list(maps))}")
        return maps[key]
