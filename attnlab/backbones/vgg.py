# B batch, C channels, H height, W width, D features, K classes
"""VGG networks for small images: the CIFAR form of VGG-16, and the two trunks of Learn To Pay Attention."""

from collections import OrderedDict

from torch import Tensor, nn

from attnlab.backbones.activation import Chain
from attnlab.backbones.head import Backbone, Stem, check_images, check_sizes, global_pool, init_convolutions, make_stem


def stage(in_channels: int, widths: list[int], *, drops: list[float] | None = None, pool: bool = True, eps: float = 1e-5) -> nn.Sequential:
    """conv1, bn1, relu1[, drop1], conv2, ...[, pool]: 3x3 convolutions with bias; drops[i] = 0 leaves a Dropout out; pool 2x2, ceil."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for index, width in enumerate(widths):
        parts[f"conv{index + 1}"] = nn.Conv2d(in_channels, width, 3, padding=1)
        parts[f"bn{index + 1}"] = nn.BatchNorm2d(width, eps=eps)
        parts[f"relu{index + 1}"] = nn.ReLU()
        if drops and drops[index]:
            parts[f"drop{index + 1}"] = nn.Dropout(drops[index])
        in_channels = width
    if pool:
        parts["pool"] = max_pool()
    return Chain(parts)


def max_pool(size: int = 2) -> nn.MaxPool2d:
    return nn.MaxPool2d(size, stride=size, ceil_mode=True)


class VGG16(Backbone):
    """VGG-16 with BatchNorm, CIFAR form: input, stem, layer1..layer5 (each ends in `pool`), pool, [neck], [bottleneck],
    features, fc.

    Simonyan and Zisserman (arXiv 1409.1556), configuration D: 2, 2, 3, 3, 3 convolutions of (1, 2, 4, 8, 8) * width channels, one Linear at
    the end. `hidden` puts a fully connected layer before it: neck = Linear(8 * width, hidden), ReLU. stem="cifar" is nothing (Identity);
    "imagenet" (ours, for large images) puts 7x7/2, BatchNorm, ReLU, max-pool/2 before layer1.
    Differs from the CIFAR repositories in: max-pools round up, the same for 32x32, so that 16x16 and 28x28 pass too; convolutions
    start by He's rule (fan-out, normal).
    Raises ValueError for vectors, for images below 16x16 (64x64 with the imagenet stem) and for sizes below 1.
    """

    def __init__(
        self, num_classes: int, shape: tuple[int, ...], *, stem: Stem, width: int, hidden: int | None, bottleneck: int | None
    ) -> None:
        check_images("vgg16", shape, smallest=16, stem=stem)
        check_sizes(num_classes=num_classes, width=width, hidden=hidden, bottleneck=bottleneck)
        super().__init__()
        w = width
        self.stem = nn.Identity() if stem == "cifar" else make_stem(stem, shape[0], w)
        self.layer1 = stage(shape[0] if stem == "cifar" else w, [w] * 2)
        self.layer2 = stage(w, [2 * w] * 2)
        self.layer3 = stage(2 * w, [4 * w] * 3)
        self.layer4 = stage(4 * w, [8 * w] * 3)
        self.layer5 = stage(8 * w, [8 * w] * 3)
        self.pool = global_pool()
        self.neck = None if hidden is None else nn.Sequential(OrderedDict(linear=nn.Linear(8 * w, hidden), relu=nn.ReLU()))
        self.add_head(hidden or 8 * w, num_classes, bottleneck)
        init_convolutions(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.layer2(self.layer1(self.stem(self.input(x_BCHW))))
        x_BD = self.pool(self.layer5(self.layer4(self.layer3(x_BCHW))))
        return self.classify(x_BD if self.neck is None else self.neck(x_BD))


class DropoutVGG(Backbone):
    """The trunks of Learn To Pay Attention (Jetley et al., arXiv 1804.02391), with `attention=False` its VGG baseline.

    input, layer1, layer2, layer3, tap1, pool1, layer4, tap2, pool2, layer5, tap3, pool3[, layer6], pool, neck, [bottleneck], features, fc.
    Every 3x3 convolution has a bias and is followed by BatchNorm (eps 1e-3), ReLU and, but for the last of a stage, Dropout (0.3 after the
    first, else 0.4). Channels for width 64: 64 64 | 128 128 | 256 x3 | 512 x3 | 512 x3.
    attention=True : no pools in layer1 and layer2; the taps (Identity) give 256x32x32, 512x16x16, 512x8x8 for 32x32 images, each before
                     its pool; layer6 adds conv 512, Dropout, pool, twice; neck = Dropout 0.5, Linear(512, 512), nothing after it:
                     `features` is the paper's global vector g.
    attention=False: pools end layer1 and layer2 too; no layer6; neck = Dropout 0.5, Linear(512, 512), BatchNorm, ReLU, Dropout 0.5.
    `first_pool` is the size of pool1: 5 for the paper's 80x80 birds. Images whose last map is larger than 1x1 are averaged there (ours).
    Convolutions ~ N(0, sqrt(2 / (k k C_out))), biases 0; Linears as in PyTorch, the same as Torch7's.
    Differs from the authors' code in: BatchNorm scales start at 1 (Torch7 draws them from U(0, 1)).
    Raises ValueError for vectors, images below 16x16, sizes below 1.
    """

    def __init__(
        self, name: str, num_classes: int, shape: tuple[int, ...], *, attention: bool, width: int, first_pool: int, bottleneck: int | None
    ) -> None:
        check_images(name, shape, smallest=16)
        check_sizes(num_classes=num_classes, width=width, first_pool=first_pool, bottleneck=bottleneck)
        super().__init__()
        w, eps, early_pool = width, 1e-3, not attention
        self.layer1 = stage(shape[0], [w] * 2, drops=[0.3, 0], pool=early_pool, eps=eps)
        self.layer2 = stage(w, [2 * w] * 2, drops=[0.4, 0], pool=early_pool, eps=eps)
        self.layer3 = stage(2 * w, [4 * w] * 3, drops=[0.4, 0.4, 0], pool=False, eps=eps)
        self.tap1, self.pool1 = nn.Identity(), max_pool(first_pool)
        self.layer4 = stage(4 * w, [8 * w] * 3, drops=[0.4, 0.4, 0], pool=False, eps=eps)
        self.tap2, self.pool2 = nn.Identity(), max_pool()
        self.layer5 = stage(8 * w, [8 * w] * 3, drops=[0.4, 0.4, 0], pool=False, eps=eps)
        self.tap3, self.pool3 = nn.Identity(), max_pool()
        self.layer6 = None
        if attention:
            halves = [stage(8 * w, [8 * w], drops=[0.4], eps=eps) for _ in range(2)]
            self.layer6 = nn.Sequential(*halves)
        self.pool = global_pool()
        neck: OrderedDict[str, nn.Module] = OrderedDict(drop1=nn.Dropout(0.5), linear=nn.Linear(8 * w, 8 * w))
        if not attention:
            neck.update(bn=nn.BatchNorm1d(8 * w), relu=nn.ReLU(), drop2=nn.Dropout(0.5))
        self.neck = nn.Sequential(neck)
        self.add_head(8 * w, num_classes, bottleneck)
        init_convolutions(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.pool1(self.tap1(self.layer3(self.layer2(self.layer1(self.input(x_BCHW))))))
        x_BCHW = self.pool2(self.tap2(self.layer4(x_BCHW)))
        x_BCHW = self.pool3(self.tap3(self.layer5(x_BCHW)))
        if self.layer6 is not None:
            x_BCHW = self.layer6(x_BCHW)
        return self.classify(self.neck(self.pool(x_BCHW)))


def vgg16(
    num_classes: int,
    shape: tuple[int, ...],
    *,
    stem: Stem = "cifar",
    width: int = 64,
    hidden: int | None = None,
    bottleneck: int | None = None,
) -> VGG16:
    """VGG-16, CIFAR form. 14,728,266 parameters for 10 classes of 3x32x32. See `VGG16`."""
    return VGG16(num_classes, shape, stem=stem, width=width, hidden=hidden, bottleneck=bottleneck)


def vgg_ltpa(
    num_classes: int, shape: tuple[int, ...], *, width: int = 64, first_pool: int = 2, bottleneck: int | None = None
) -> DropoutVGG:
    """The VGG-att trunk, to be used with attention=ltpa; alone, `fc` classifies g. See `DropoutVGG`."""
    return DropoutVGG("vgg_ltpa", num_classes, shape, attention=True, width=width, first_pool=first_pool, bottleneck=bottleneck)


def vgg_bn_drop(num_classes: int, shape: tuple[int, ...], *, width: int = 64, bottleneck: int | None = None) -> DropoutVGG:
    """The VGG baseline of the paper: 14,991,946 parameters for 10 classes of 3x32x32. See `DropoutVGG`."""
    return DropoutVGG("vgg_bn_drop", num_classes, shape, attention=False, width=width, first_pool=2, bottleneck=bottleneck)
