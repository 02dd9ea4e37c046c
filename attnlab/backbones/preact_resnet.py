# B batch, C channels, H height, W width, K classes
"""Pre-activation ResNets for small images (He et al., arXiv 1603.05027): 20, 32, 110 layers of basic blocks, 164 of bottlenecks."""

from collections import OrderedDict

from torch import Tensor, nn

from attnlab.backbones.activation import activate
from attnlab.backbones.head import Backbone, Stem, check_images, check_sizes, global_pool, init_convolutions, make_stem
from attnlab.backbones.resnet import conv1x1, conv3x3
from attnlab.backbones.wide_resnet import PreActivationBlock


class PreActivationBottleneck(nn.Module):
    """o = relu1(bn1(x)); y = conv3(relu3(bn3(conv2(relu2(bn2(conv1(o))))))); x + y, or downsample(o) + y where the shape changes."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = 4 * width
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = conv1x1(in_channels, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv2 = conv3x3(width, width, stride)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu3 = nn.ReLU()
        self.conv3 = conv1x1(width, out_channels)
        same = stride == 1 and in_channels == out_channels
        self.downsample = None if same else nn.Sequential(OrderedDict(conv=conv1x1(in_channels, out_channels, stride)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        o_BCHW = activate(self.relu1, self.bn1(x_BCHW), self.bn1)
        y_BCHW = self.conv2(activate(self.relu2, self.bn2(self.conv1(o_BCHW)), self.bn2))
        y_BCHW = self.conv3(activate(self.relu3, self.bn3(y_BCHW), self.bn3))
        return y_BCHW + (x_BCHW if self.downsample is None else self.downsample(o_BCHW))


class PreActResNet(Backbone):
    """Pre-activation residual network: input, stem.conv, layer1..layer3, norm.bn, norm.relu, pool, [bottleneck], features, fc.

    `depth` = 6 n + 2 with n basic blocks a stage, or 9 n + 2 with n bottleneck blocks; stage s has width * 2**s channels (times 4 at the
    end of a bottleneck), strides 1, 2, 2. The stem has `width` channels and neither BatchNorm nor ReLU. Shortcuts that change the shape
    are 1x1 convolutions of the activated input. Convolutions start by He's rule (fan-out, normal), the bias of fc at 0, as for WideResNet,
    of which the basic form is the case of widening factor 1.
    Raises ValueError for vectors, for images below 4x4 (16x16 with the imagenet stem), sizes below 1 and a depth that no n gives.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        shape: tuple[int, ...],
        *,
        depth: int,
        block: type[PreActivationBlock | PreActivationBottleneck],
        stem: Stem,
        width: int,
        bottleneck: int | None,
    ) -> None:
        check_images(name, shape, smallest=4, stem=stem)
        check_sizes(num_classes=num_classes, width=width, bottleneck=bottleneck)
        expansion = getattr(block, "expansion", 1)
        per_block = 6 if expansion == 1 else 9
        if depth < per_block + 2 or (depth - 2) % per_block:
            raise ValueError(f"depth must be {per_block} n + 2 with n of at least 1, got {depth}")
        super().__init__()
        self.stem = make_stem(stem, shape[0], width, norm=False)
        channels, stages = width, []
        for index in range(3):
            stage = []
            for position in range((depth - 2) // per_block):
                stage.append(block(channels, width * 2**index, 2 if index and not position else 1))
                channels = width * 2**index * expansion
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3 = stages
        self.norm = nn.Sequential(OrderedDict(bn=nn.BatchNorm2d(channels), relu=nn.ReLU()))
        self.pool = global_pool()
        self.add_head(channels, num_classes, bottleneck)
        init_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.stem(self.input(x_BCHW))
        x_BCHW = self.norm(self.layer3(self.layer2(self.layer1(x_BCHW))))
        return self.classify(self.pool(x_BCHW))


def preresnet20(
    num_classes: int, shape: tuple[int, ...], *, stem: Stem = "cifar", width: int = 16, bottleneck: int | None = None
) -> PreActResNet:
    """Pre-activation ResNet-20. 272,282 parameters for 10 classes of 3x32x32. See `PreActResNet`."""
    options = dict(stem=stem, width=width, bottleneck=bottleneck)
    return PreActResNet("preresnet20", num_classes, shape, depth=20, block=PreActivationBlock, **options)


def preresnet32(
    num_classes: int, shape: tuple[int, ...], *, stem: Stem = "cifar", width: int = 16, bottleneck: int | None = None
) -> PreActResNet:
    """Pre-activation ResNet-32. 466,714 parameters for 10 classes of 3x32x32. See `PreActResNet`."""
    options = dict(stem=stem, width=width, bottleneck=bottleneck)
    return PreActResNet("preresnet32", num_classes, shape, depth=32, block=PreActivationBlock, **options)


def preresnet110(
    num_classes: int, shape: tuple[int, ...], *, stem: Stem = "cifar", width: int = 16, bottleneck: int | None = None
) -> PreActResNet:
    """Pre-activation ResNet-110. 1,730,522 parameters for 10 classes of 3x32x32. See `PreActResNet`."""
    options = dict(stem=stem, width=width, bottleneck=bottleneck)
    return PreActResNet("preresnet110", num_classes, shape, depth=110, block=PreActivationBlock, **options)


def preresnet164(
    num_classes: int, shape: tuple[int, ...], *, stem: Stem = "cifar", width: int = 16, bottleneck: int | None = None
) -> PreActResNet:
    """Pre-activation ResNet-164. 1,703,258 parameters for 10 classes of 3x32x32. See `PreActResNet`."""
    options = dict(stem=stem, width=width, bottleneck=bottleneck)
    return PreActResNet("preresnet164", num_classes, shape, depth=164, block=PreActivationBottleneck, **options)
