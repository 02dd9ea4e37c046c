# B batch, C channels, H height, W width, D features, K classes
"""What our backbones share: the first and the last places, the stem, the weights at the start, and the check of the data's shape."""

from collections import OrderedDict
from typing import Any, Literal, get_args

from torch import Tensor, nn

from attnlab.backbones.activation import Chain
from attnlab.backbones.fixed_edges import FixedEdges

Stem = Literal["cifar", "imagenet"]
EdgeStem = Literal["cifar", "imagenet", "edges", "imagenet_edges"]


class Backbone(nn.Module):
    """Base of the backbones: place `input` first; `bottleneck` (where asked for), `features` and `fc` last, set by `add_head`."""

    bottleneck: nn.Linear | None

    def __init__(self) -> None:
        super().__init__()
        self.input = nn.Identity()

    def add_head(self, dim: int, num_classes: int, bottleneck: int | None) -> None:
        """Linear(dim, bottleneck), or nothing, then features (D,), then fc. No nonlinearity follows the bottleneck."""
        self.bottleneck = None if bottleneck is None else nn.Linear(dim, bottleneck)
        self.features = nn.Identity()
        self.fc = nn.Linear(bottleneck or dim, num_classes)

    def classify(self, x_BD: Tensor) -> Tensor:
        """Pooled values -> logits_BK."""
        if self.bottleneck is not None:
            x_BD = self.bottleneck(x_BD)
        return self.fc(self.features(x_BD))


def global_pool() -> nn.Sequential:
    """The place `pool`: (B, C, H, W) -> (B, C), the mean over the map."""
    return nn.Sequential(OrderedDict(avg=nn.AdaptiveAvgPool2d(1), flatten=nn.Flatten()))


def make_stem(stem: EdgeStem, in_channels: int, out_channels: int, *, norm: bool = True) -> nn.Sequential:
    """The place `stem`. cifar: 3x3 convolution, stride 1. imagenet: 7x7, stride 2, and a 3x3 max-pool, stride 2 (images / 4).

    edges, imagenet_edges: fixed 3x3 edge filters (`FixedEdges`) at the stride of these, then a 1x1 convolution.
    `norm=False` leaves BatchNorm and ReLU out: pre-activation networks open their first block with them.
    """
    large = stem.startswith("imagenet")
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    size, stride = (7, 2) if large else (3, 1)
    if stem.endswith("edges"):
        parts["edges"] = FixedEdges(in_channels, stride=stride)
        in_channels, size, stride = parts["edges"].num_maps, 1, 1
    parts["conv"] = nn.Conv2d(in_channels, out_channels, size, stride=stride, padding=size // 2, bias=False)
    if norm:
        parts["bn"] = nn.BatchNorm2d(out_channels)
        parts["relu"] = nn.ReLU()
    if large:
        parts["pool"] = nn.MaxPool2d(3, stride=2, padding=1)
    return Chain(parts)


def init_convolutions(model: nn.Module) -> None:
    """Every convolution ~ N(0, sqrt(2 / (k k C_out))), biases 0: He's rule by fan-out, torchvision's for ResNets and "MSR" of Torch7."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def check_images(model: str, shape: tuple[int, ...], *, smallest: int = 1, stem: EdgeStem = "cifar", stems: Any = Stem) -> None:
    """Raise ValueError unless `shape` is (C, H, W) with H and W of at least `smallest`, four times that with an imagenet stem.

    stems: the Literal of the stems that the model has.
    """
    if stem not in get_args(stems):
        raise ValueError(f"stem must be {' or '.join(get_args(stems))}, got {stem!r}")
    if len(shape) != 3:
        given = f"vectors of {shape[0]} values: use model=mlp2d" if len(shape) == 1 else f"values of shape {tuple(shape)}"
        raise ValueError(f"model={model} takes images (C, H, W); data gives {given}")
    if min(shape) < 1:
        raise ValueError(f"shape (C, H, W) must be positive, got {tuple(shape)}")
    needed = smallest * (4 if stem.startswith("imagenet") else 1)
    height, width = shape[1:]
    if min(height, width) < needed:
        if stem.startswith("imagenet") and min(height, width) >= smallest:
            way_out = f"use model.stem={'edges' if stem.endswith('edges') else 'cifar'}"
        else:
            way_out = "use larger images or a model with fewer strides, such as model=cnn3"
        raise ValueError(
            f"model={model} with stem={stem} needs images of at least {needed}x{needed}; data gives {height}x{width}: {way_out}"
        )


def check_sizes(**sizes: int | None) -> None:
    """Raise ValueError for a size below 1; None passes."""
    for name, size in sizes.items():
        if size is not None and size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}")
