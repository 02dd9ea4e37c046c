# B batch, C channels, H W height and width of the map
"""The known attention layers (SE, CBAM, ECA, coordinate attention, ...), taken from timm as they are."""

import inspect

import torch
from torch import Tensor, nn

from attnlab.config.suggest import nearest
from attnlab.placement.shapes import check_shape

# What timm.layers.get_attn knows (timm has no list of its own): only for the error message, any newer name works too.
NAMES = [
    "se",
    "ese",
    "eca",
    "ecam",
    "ceca",
    "ge",
    "gc",
    "gca",
    "cbam",
    "lcbam",
    "coord",
    "scoord",
    "ela",
    "strip",
    "sk",
    "splat",
    "lambda",
    "bottleneck",
    "halo",
    "nl",
    "bat",
]


class KeepOutput:
    """A forward hook that keeps the output. An object and not a closure, so that deepcopy follows it."""

    def __init__(self):
        self.value: Tensor | None = None

    def __call__(self, module: nn.Module, inputs: tuple, output: Tensor) -> None:
        self.value = output

    def take(self) -> Tensor | None:
        value, self.value = self.value, None
        return value


class TimmAttention(nn.Module):
    """y = layer(x), where layer is timm's attention layer of that name, built for the C channels of the place.

    se: squeeze-and-excitation (arXiv 1709.01507); cbam: channel, then spatial attention (1807.06521); eca: efficient
    channel attention (1910.03151); coord: coordinate attention (2103.02907); or any other name of `timm.layers.get_attn`.

    shape: (C, H, W) of the place; x and y: (B, C, H, W). rd_ratio: hidden channels / C where the layer has hidden
    channels; None takes timm's default (1/16 for se, cbam and coord). Layers that ask for `feat_size` get (H, W).
    `.map`: (B, 1, H, W) in [0, 1], the spatial gate of cbam and lcbam; None for layers without a spatial map.
    Raises ValueError: unknown name (with the nearest ones), a layer that does not work on this shape (bat: sides divisible
    by 7, halo: by 8; ge is broken in timm 1.0.31), rd_ratio out of (0, 1] or for a layer that has none.
    Differs from the papers where timm does: se rounds its hidden channels up to a multiple of 8, and cbam has no batch
    norm in its channel MLP and none but the one after the 7x7 convolution.
    """

    def __init__(self, shape: tuple[int, ...], *, name: str, rd_ratio: float | None = None):
        super().__init__()
        check_shape(shape, "CHW", what=f"{name} attention")
        build = find_layer(name)
        takes = inspect.signature(build).parameters
        options: dict[str, object] = {"feat_size": tuple(shape[1:])} if "feat_size" in takes else {}
        if rd_ratio is not None:
            # timm's eca accepts rd_ratio and ignores it: its width is a kernel over the channels
            if "rd_ratio" not in takes or name.lower() == "eca":
                raise ValueError(f"{name} attention has no hidden channels, so no rd_ratio: leave it out (got {rd_ratio})")
            if not 0 < rd_ratio <= 1:
                raise ValueError(f"rd_ratio must be in (0, 1], got {rd_ratio}")
            options["rd_ratio"] = rd_ratio
        try:  # a dry run, as some layers want sides that their blocks divide, and say so with a bare assertion
            self.layer = build(shape[0], **options).eval()
            with torch.no_grad():
                self.layer(torch.zeros(1, *shape))
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"timm's {name} attention does not work on {tuple(shape)}: {error or 'sizes it cannot divide'}") from error
        self.layer.train()
        self.map: Tensor | None = None
        self.keep: KeepOutput | None = None
        gate = getattr(getattr(self.layer, "spatial", None), "gate", None)
        if gate is not None:
            self.keep = KeepOutput()
            gate.register_forward_hook(self.keep)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = self.layer(x_BCHW)
        if self.keep is not None:
            self.map = self.keep.take()
        return y_BCHW

    def __getstate__(self):  # a copy takes the weights, not the graph of the last batch (which cannot be copied)
        return {**super().__getstate__(), "map": None}


def find_layer(name: str):
    """timm's constructor of the attention layer `name`; ValueError with the nearest names if there is none."""
    from timm.layers import get_attn

    try:
        layer = get_attn(name)
    except AssertionError:  # how timm says "unknown"
        layer = None
    if layer is None:
        raise ValueError(f"timm has no attention layer {name!r}; {nearest(name, NAMES)}")
    return layer
