# B batch, C channels, H height, W width, K classes
"""Very deep networks without skip connections: a residual network of small images whose shortcuts are gone."""

from collections import OrderedDict

from torch import Tensor, nn

from attnlab.backbones.head import Backbone, Stem, check_images, check_sizes, global_pool, make_stem
from attnlab.backbones.resnet import conv3x3


def activation(slope: float) -> nn.Module:
    return nn.ReLU() if slope == 0 else nn.LeakyReLU(slope)


class PlainBlock(nn.Module):
    """relu2(bn2(conv2(relu1(bn1(conv1(x)))))): a residual block without its sum."""

    def __init__(self, in_channels: int, width: int, stride: int, slope: float) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = activation(slope)
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = activation(slope)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.relu1(self.bn1(self.conv1(x_BCHW)))
        return self.relu2(self.bn2(self.conv2(x_BCHW)))


class PlainNet(Backbone):
    """PlainNet: input, stem, layer1..layer3, pool, [bottleneck], features, fc; our reading of the PlainNets of Oyedotun et al.

    "Revisiting the training of very deep neural networks without skip connections" (ICPR 2020) trains such networks of up to 100 layers by
    "a specific combination of simple techniques", which is not known to us. Here: the network of He et al. (arXiv 1512.03385) for CIFAR
    without its shortcuts, batch norm, leaky ReLUs and He's normal start for them (fan-in, so that activations keep their variance over
    the depth); what else the authors' related work has is chosen beside it: `callback=weight_centring` (max_norm, centred filters).
    `evaluator=[layers]` shows how far signals and their rank get.

    depth = 6 n + 2, at least 8, with n blocks of two convolutions in each of three stages of width, 2 width and 4 width channels, strides
    1, 2, 2. slope: of the leaky ReLUs, in [0, 1); 0 is a ReLU.
    Raises ValueError for vectors, for images below 4x4 (16x16 with the imagenet stem), sizes below 1, a depth that no n gives, a slope
    out of range.
    """

    def __init__(
        self, num_classes: int, shape: tuple[int, ...], *, depth: int, stem: Stem, width: int, slope: float, bottleneck: int | None
    ) -> None:
        check_images("plainnet", shape, smallest=4, stem=stem)
        check_sizes(num_classes=num_classes, width=width, bottleneck=bottleneck)
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(f"depth must be 6 n + 2 with n of at least 1, got {depth}")
        if not 0 <= slope < 1:
            raise ValueError(f"slope must be in [0, 1), got {slope}")
        super().__init__()
        self.stem = make_stem(stem, shape[0], width)
        if slope:
            self.stem.relu = activation(slope)
        channels, stages = width, []
        for index in range(3):
            blocks: OrderedDict[str, nn.Module] = OrderedDict()
            for position in range((depth - 2) // 6):
                blocks[str(position)] = PlainBlock(channels, width * 2**index, 2 if index and not position else 1, slope)
                channels = width * 2**index
            stages.append(nn.Sequential(blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.pool = global_pool()
        self.add_head(channels, num_classes, bottleneck)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=slope, mode="fan_in", nonlinearity="leaky_relu")

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.stem(self.input(x_BCHW))
        return self.classify(self.pool(self.layer3(self.layer2(self.layer1(x_BCHW)))))


def plainnet(
    num_classes: int,
    shape: tuple[int, ...],
    *,
    depth: int = 56,
    stem: Stem = "cifar",
    width: int = 16,
    slope: float = 0.2,
    bottleneck: int | None = None,
) -> PlainNet:
    """PlainNet-56: our reading of Oyedotun et al. 853,018 parameters for 10 classes of 3x32x32. See `PlainNet`."""
    return PlainNet(num_classes, shape, depth=depth, stem=stem, width=width, slope=slope, bottleneck=bottleneck)
