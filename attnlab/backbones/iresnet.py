# B batch, C channels, H height, W width, K classes
"""iResNet-18, 34 and 50 (Duta et al., arXiv 2004.04989): improved residual networks."""

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn

from attnlab.backbones.head import Backbone, Stem, check_images, check_sizes, global_pool, init_convolutions
from attnlab.backbones.resnet import conv1x1, conv3x3


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """The shortcut: max-pool 3x3 where there is a stride, then 1x1 convolution and BatchNorm where the channels change."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if stride != 1:
        parts["pool"] = nn.MaxPool2d(3, stride=stride, padding=1)
    if in_channels != out_channels:
        parts["conv"], parts["bn"] = conv1x1(in_channels, out_channels), nn.BatchNorm2d(out_channels)
    return nn.Sequential(parts) if parts else None


class ResStageBlock(nn.Module):
    """A block of a ResStage. Its branch is `conv1, bn1, relu1, conv2[, bn2, relu2, conv3]`; what stands around it depends on its position:

        start   y = bn(branch(x)) + downsample(x)
        middle  y = branch(relu0(bn0(x))) + x
        end     y = relu(bn(branch(relu0(bn0(x))) + x))
    The first block after `start` has no bn0, as a BatchNorm came just before, and adds relu0(x), not x: the authors' ReLU is in place
    there, and their networks were trained so.
    """

    def __init__(self, in_channels: int, width: int, stride: int, *, expansion: int, start: bool, second: bool, end: bool) -> None:
        super().__init__()
        out_channels = width * expansion
        self.start, self.second = start, second
        if not start:
            if not second:
                self.bn0 = nn.BatchNorm2d(in_channels)
            self.relu0 = nn.ReLU()
        convs = (
            [conv3x3(in_channels, width, stride), conv3x3(width, width)]
            if expansion == 1
            else [conv1x1(in_channels, width), conv3x3(width, width, stride), conv1x1(width, out_channels)]
        )
        parts: OrderedDict[str, nn.Module] = OrderedDict()
        for index, conv in enumerate(convs, 1):
            parts[f"conv{index}"] = conv
            if index < len(convs):
                parts[f"bn{index}"], parts[f"relu{index}"] = nn.BatchNorm2d(width), nn.ReLU()
        self.branch = nn.Sequential(parts)
        self.downsample = projection(in_channels, out_channels, stride)
        self.norm = nn.BatchNorm2d(out_channels) if start or end else None
        self.relu = nn.ReLU() if end else None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        y_BCHW = x_BCHW if self.start else self.relu0(x_BCHW if self.second else self.bn0(x_BCHW))
        identity_BCHW = y_BCHW if self.second else x_BCHW
        y_BCHW = self.branch(y_BCHW)
        if self.start:
            y_BCHW = self.norm(y_BCHW)
        y_BCHW = y_BCHW + (identity_BCHW if self.downsample is None else self.downsample(identity_BCHW))
        return y_BCHW if self.relu is None else self.relu(self.norm(y_BCHW))


def res_stage(in_channels: int, width: int, blocks: int, stride: int, *, expansion: int) -> nn.Sequential:
    """start, middle, ..., middle, end: `blocks` >= 2 of them; only the end has a ReLU on the trunk."""
    channels = [in_channels, *[width * expansion] * blocks]
    return nn.Sequential(
        *(
            ResStageBlock(
                before,
                width,
                1 if index else stride,
                expansion=expansion,
                start=index == 0,
                second=index == 1,
                end=index == blocks - 1,
            )
            for index, (before, _) in enumerate(pairwise(channels))
        )
    )


class IResNet(Backbone):
    """Improved residual network: input, stem, layer1..layer4, pool, [bottleneck], features, fc; forward(x_BCHW) -> logits_BK.

    Against ResNet: stages of a start, middle and an end block with one ReLU on the trunk (`ResStageBlock`), shortcuts that pool instead of
    skipping positions (`projection`), and, with the imagenet stem, no max-pool in it: stage 1 has stride 2. As many parameters as ResNet,
    up to BatchNorm vectors. Places: layer*.*.branch.{conv1,bn1,relu1,...}, layer*.*.norm, layer*.*.downsample.{pool,conv,bn}.
    stem="cifar" (ours): 3x3 convolution and strides 1, 2, 2, 2, as for ResNet. Convolutions start by He's rule (fan-out, normal).
    Raises ValueError for vectors, for images below 8x8 (32x32 with the imagenet stem) and for sizes below 1.
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        shape: tuple[int, ...],
        *,
        expansion: int,
        blocks: tuple[int, ...],
        stem: Stem,
        width: int,
        bottleneck: int | None,
    ) -> None:
        check_images(name, shape, smallest=8, stem=stem)
        check_sizes(num_classes=num_classes, width=width, bottleneck=bottleneck)
        super().__init__()
        large = stem == "imagenet"
        size = 7 if large else 3
        conv = nn.Conv2d(shape[0], width, size, stride=2 if large else 1, padding=size // 2, bias=False)
        self.stem = nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(width), relu=nn.ReLU()))
        channels, stages = width, []
        for index, num_blocks in enumerate(blocks):
            stages.append(res_stage(channels, width * 2**index, num_blocks, 2 if index or large else 1, expansion=expansion))
            channels = width * 2**index * expansion
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.pool = global_pool()
        self.add_head(channels, num_classes, bottleneck)
        init_convolutions(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.stem(self.input(x_BCHW))
        x_BCHW = self.layer4(self.layer3(self.layer2(self.layer1(x_BCHW))))
        return self.classify(self.pool(x_BCHW))


def iresnet18(num_classes: int, shape: tuple[int, ...], *, stem: Stem = "cifar", width: int = 64, bottleneck: int | None = None) -> IResNet:
    """iResNet-18: basic blocks, 2 a stage. See `IResNet`."""
    return IResNet("iresnet18", num_classes, shape, expansion=1, blocks=(2, 2, 2, 2), stem=stem, width=width, bottleneck=bottleneck)


def iresnet34(num_classes: int, shape: tuple[int, ...], *, stem: Stem = "cifar", width: int = 64, bottleneck: int | None = None) -> IResNet:
    """iResNet-34: basic blocks, (3, 4, 6, 3). See `IResNet`."""
    return IResNet("iresnet34", num_classes, shape, expansion=1, blocks=(3, 4, 6, 3), stem=stem, width=width, bottleneck=bottleneck)


def iresnet50(num_classes: int, shape: tuple[int, ...], *, stem: Stem = "cifar", width: int = 64, bottleneck: int | None = None) -> IResNet:
    """iResNet-50: bottleneck blocks, (3, 4, 6, 3); 77.31% top-1 on ImageNet in the authors' README (ResNet-50: 76.12%). See `IResNet`."""
    return IResNet("iresnet50", num_classes, shape, expansion=4, blocks=(3, 4, 6, 3), stem=stem, width=width, bottleneck=bottleneck)
