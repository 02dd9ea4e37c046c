# B batch, C channels, H height, W width, K classes
"""ResNet-18, 34 and 50 (He et al., arXiv 1512.03385), with the CIFAR or the ImageNet stem."""

from collections import OrderedDict

from torch import Tensor, nn

from attnlab.backbones.activation import activate
from attnlab.backbones.head import Backbone, EdgeStem, check_images, check_sizes, global_pool, init_convolutions, make_stem


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)


def shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """1x1 convolution and BatchNorm where the block changes the shape, nothing elsewhere."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(OrderedDict(conv=conv1x1(in_channels, out_channels, stride), bn=nn.BatchNorm2d(out_channels)))


class BasicBlock(nn.Module):
    """relu2( bn2(conv2(relu1(bn1(conv1(x))))) + downsample(x) )"""

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, width, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = shortcut(in_channels, width, stride)
        self.relu2 = nn.ReLU()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = activate(self.relu1, self.bn1(self.conv1(x_BCHW)), self.bn1)
        y_BCHW = self.bn2(self.conv2(y_BCHW))
        return activate(self.relu2, y_BCHW + (x_BCHW if self.downsample is None else self.downsample(x_BCHW)))


class Bottleneck(nn.Module):
    """relu3( bn3(conv3(relu2(bn2(conv2(relu1(bn1(conv1(x)))))))) + downsample(x) ); the stride is in the 3x3 convolution."""

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv1x1(in_channels, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(width, width, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu2 = nn.ReLU()
        self.conv3 = conv1x1(width, 4 * width)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = shortcut(in_channels, 4 * width, stride)
        self.relu3 = nn.ReLU()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = activate(self.relu1, self.bn1(self.conv1(x_BCHW)), self.bn1)
        y_BCHW = activate(self.relu2, self.bn2(self.conv2(y_BCHW)), self.bn2)
        y_BCHW = self.bn3(self.conv3(y_BCHW))
        return activate(self.relu3, y_BCHW + (x_BCHW if self.downsample is None else self.downsample(x_BCHW)))


class ResNet(Backbone):
    """Residual network: input, stem, layer1..layer4, pool, [bottleneck], features, fc; forward(x_BCHW) -> logits_BK.

    Stage s has `blocks[s]` blocks of `width * 2**s` channels (times 4 at the end of a `Bottleneck`), strides 1, 2, 2, 2.
    stem="cifar" is the form of the CIFAR repositories (3x3, no max-pool), "imagenet" the paper's and torchvision's.
    "edges" and "imagenet_edges" have fixed edge filters and a 1x1 convolution in place of the stem's convolution (see `FixedEdges`).
    Every ReLU and BatchNorm is a module of its own, called once a pass: conv1, bn1, relu1, conv2, bn2, relu2[, conv3, bn3, relu3],
    downsample.conv, downsample.bn. Convolutions start by He's rule (fan-out, normal) and fc by PyTorch's default, as in torchvision;
    the last BatchNorm of a block starts at 1.
    Raises ValueError for vectors, for images below 8x8 (32x32 with the imagenet stem) and for sizes below 1.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        shape: tuple[int, ...],
        *,
        block: type[BasicBlock | Bottleneck],
        blocks: tuple[int, ...],
        stem: EdgeStem,
        width: int,
        bottleneck: int | None,
    ) -> None:
        check_images(name, shape, smallest=8, stem=stem, stems=EdgeStem)
        check_sizes(num_classes=num_classes, width=width, bottleneck=bottleneck)
        super().__init__()
        self.stem = make_stem(stem, shape[0], width)
        channels = width
        stages = []
        for index, num_blocks in enumerate(blocks):
            stage = []
            for position in range(num_blocks):
                stage.append(block(channels, width * 2**index, 2 if index and not position else 1))
                channels = width * 2**index * block.expansion
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.pool = global_pool()
        self.add_head(channels, num_classes, bottleneck)
        init_convolutions(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.stem(self.input(x_BCHW))
        x_BCHW = self.layer4(self.layer3(self.layer2(self.layer1(x_BCHW))))
        return self.classify(self.pool(x_BCHW))


def resnet18(
    num_classes: int, shape: tuple[int, ...], *, stem: EdgeStem = "cifar", width: int = 64, bottleneck: int | None = None
) -> ResNet:
    """ResNet-18. 11,173,962 parameters for 10 classes of 3x32x32; 11,689,512 with the imagenet stem and 1000 classes. See `ResNet`."""
    options = dict(stem=stem, width=width, bottleneck=bottleneck)
    return ResNet("resnet18", num_classes, shape, block=BasicBlock, blocks=(2, 2, 2, 2), **options)


def resnet34(
    num_classes: int, shape: tuple[int, ...], *, stem: EdgeStem = "cifar", width: int = 64, bottleneck: int | None = None
) -> ResNet:
    """ResNet-34. 21,282,122 parameters for 10 classes of 3x32x32; 21,797,672 with the imagenet stem and 1000 classes. See `ResNet`."""
    options = dict(stem=stem, width=width, bottleneck=bottleneck)
    return ResNet("resnet34", num_classes, shape, block=BasicBlock, blocks=(3, 4, 6, 3), **options)


def resnet50(
    num_classes: int, shape: tuple[int, ...], *, stem: EdgeStem = "cifar", width: int = 64, bottleneck: int | None = None
) -> ResNet:
    """ResNet-50. 23,520,842 parameters for 10 classes of 3x32x32; 25,557,032 with the imagenet stem and 1000 classes. See `ResNet`."""
    options = dict(stem=stem, width=width, bottleneck=bottleneck)
    return ResNet("resnet50", num_classes, shape, block=Bottleneck, blocks=(3, 4, 6, 3), **options)
