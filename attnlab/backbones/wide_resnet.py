# B batch, C channels, H height, W width, K classes
"""Wide residual networks (Zagoruyko and Komodakis, arXiv 1605.07146): WRN-28-10 and WRN-16-4."""

from collections import OrderedDict

from torch import Tensor, nn

from attnlab.backbones.activation import activate
from attnlab.backbones.head import Backbone, Stem, check_images, check_sizes, global_pool, init_convolutions, make_stem
from attnlab.backbones.resnet import conv1x1, conv3x3

STEM_WIDTH = 16


class PreActivationBlock(nn.Module):
    """o = relu1(bn1(x)); y = conv2(relu2(bn2(conv1(o)))); x + y, or downsample(o) + y where the shape changes.

    What the papers put inside the block (Dropout, MaxDropout: between ReLU2 and conv2) goes after the place `layer*.*.relu2`.
    """

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = conv3x3(in_channels, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv2 = conv3x3(width, width)
        same = stride == 1 and in_channels == width
        self.downsample = None if same else nn.Sequential(OrderedDict(conv=conv1x1(in_channels, width, stride)))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        o_BCHW = activate(self.relu1, self.bn1(x_BCHW), self.bn1)
        y_BCHW = self.conv2(activate(self.relu2, self.bn2(self.conv1(o_BCHW)), self.bn2))
        return y_BCHW + (x_BCHW if self.downsample is None else self.downsample(o_BCHW))


class WideResNet(Backbone):
    """Wide residual network: input, stem.conv, layer1..layer3, norm.bn, norm.relu, pool, [bottleneck], features, fc.

    `depth` = 6 n + 4 with n blocks a stage; stage s has `width * 2**s` channels, so width = 16 * the paper's widening factor; strides
    1, 2, 2. The stem has 16 channels and neither BatchNorm nor ReLU (pre-activation), with the imagenet stem (ours, for large images) too.
    Convolutions start by He's rule (fan-out, normal), the bias of fc at 0, as in the PyTorch repository that the Cutout and MaxDropout
    papers build on. Differs from it in: no dropout inside (place one after `layer*.*.relu2`).
    Raises ValueError for vectors, for images below 4x4 (16x16 with the imagenet stem) and for sizes below 1.
    """

    def __init__(
        self, name: str, num_classes: int, shape: tuple[int, ...], *, depth: int, stem: Stem, width: int, bottleneck: int | None
    ) -> None:
        check_images(name, shape, smallest=4, stem=stem)
        check_sizes(num_classes=num_classes, width=width, bottleneck=bottleneck)
        super().__init__()
        self.stem = make_stem(stem, shape[0], STEM_WIDTH, norm=False)
        channels = STEM_WIDTH
        stages = []
        for index in range(3):
            stage = []
            for position in range((depth - 4) // 6):
                stage.append(PreActivationBlock(channels, width * 2**index, 2 if index and not position else 1))
                channels = width * 2**index
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


def wrn28_10(
    num_classes: int, shape: tuple[int, ...], *, stem: Stem = "cifar", width: int = 160, bottleneck: int | None = None
) -> WideResNet:
    """WRN-28-10. 36,479,194 parameters for 10 classes of 3x32x32; width=64 is WRN-28-4. See `WideResNet`."""
    return WideResNet("wrn28_10", num_classes, shape, depth=28, stem=stem, width=width, bottleneck=bottleneck)


def wrn16_4(
    num_classes: int, shape: tuple[int, ...], *, stem: Stem = "cifar", width: int = 64, bottleneck: int | None = None
) -> WideResNet:
    """WRN-16-4. 2,748,890 parameters for 10 classes of 3x32x32; width=128 is WRN-16-8. See `WideResNet`."""
    return WideResNet("wrn16_4", num_classes, shape, depth=16, stem=stem, width=width, bottleneck=bottleneck)
