# B batch, C channels, H height, W width, K classes
"""DenseNet-BC for small images (Huang et al., arXiv 1608.06993)."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from attnlab.backbones.head import Backbone, Stem, check_images, check_sizes, global_pool, init_convolutions, make_stem
from attnlab.backbones.resnet import conv1x1, conv3x3


class DenseLayer(nn.Module):
    """cat(x, conv2(relu2(bn2(conv1(relu1(bn1(x))))))): a 1x1 convolution to 4 growth channels ("B"), a 3x3 to `growth` new channels."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.relu1 = nn.ReLU()
        self.conv1 = conv1x1(in_channels, 4 * growth)
        self.bn2 = nn.BatchNorm2d(4 * growth)
        self.relu2 = nn.ReLU()
        self.conv2 = conv3x3(4 * growth, growth)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.cat([x_BCHW, self.conv2(self.relu2(self.bn2(self.conv1(self.relu1(self.bn1(x_BCHW))))))], 1)


class DenseNetBC(Backbone):
    """DenseNet-BC: input, stem.conv, layer1, transition1, layer2, transition2, layer3, norm.{bn,relu}, pool, [bottleneck], features, fc.

    Three dense blocks of n = (depth - 4) / 6 layers, `growth` new channels each; a transition (bn, relu, conv 1x1, pool 2x2 average) halves
    channels ("C") and sides. The stem has 2 growth channels, no BatchNorm and no ReLU. The paper's dropout, for training without
    augmentation, goes after `layer*.*.conv2`. Convolutions start by He's rule (fan-out, normal), the bias of fc at 0.
    Raises ValueError for vectors, for images below 4x4 (16x16 with the imagenet stem), sizes below 1 and another depth.
    """

    def __init__(
        self, name: str, num_classes: int, shape: tuple[int, ...], *, depth: int, growth: int, stem: Stem, bottleneck: int | None
    ) -> None:
        check_images(name, shape, smallest=4, stem=stem)
        check_sizes(num_classes=num_classes, growth=growth, bottleneck=bottleneck)
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"depth must be 6 n + 4 with n of at least 1, got {depth}")
        super().__init__()
        channels = 2 * growth
        self.stem = make_stem(stem, shape[0], channels, norm=False)
        for index in (1, 2, 3):
            layers = []
            for _ in range((depth - 4) // 6):
                layers.append(DenseLayer(channels, growth))
                channels += growth
            setattr(self, f"layer{index}", nn.Sequential(*layers))
            if index < 3:
                setattr(self, f"transition{index}", transition(channels, channels // 2))
                channels //= 2
        self.norm = nn.Sequential(OrderedDict(bn=nn.BatchNorm2d(channels), relu=nn.ReLU()))
        self.pool = global_pool()
        self.add_head(channels, num_classes, bottleneck)
        init_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.transition1(self.layer1(self.stem(self.input(x_BCHW))))
        x_BCHW = self.norm(self.layer3(self.transition2(self.layer2(x_BCHW))))
        return self.classify(self.pool(x_BCHW))


def transition(in_channels: int, out_channels: int) -> nn.Sequential:
    parts = OrderedDict(bn=nn.BatchNorm2d(in_channels), relu=nn.ReLU(), conv=conv1x1(in_channels, out_channels), pool=nn.AvgPool2d(2))
    return nn.Sequential(parts)


def densenet_bc(
    num_classes: int,
    shape: tuple[int, ...],
    *,
    depth: int = 100,
    growth: int = 12,
    stem: Stem = "cifar",
    bottleneck: int | None = None,
) -> DenseNetBC:
    """DenseNet-BC-100-12: 769,162 parameters for 10 classes of 3x32x32; depth=190, growth=40: 25.6 million. See `DenseNetBC`."""
    return DenseNetBC("densenet_bc", num_classes, shape, depth=depth, growth=growth, stem=stem, bottleneck=bottleneck)
