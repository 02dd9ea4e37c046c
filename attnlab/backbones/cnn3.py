# B batch, C channels, H height, W width, K classes
"""The three-convolution network of the lens-depth paper's Fashion-MNIST experiment."""

from collections import OrderedDict

from torch import Tensor, nn

from attnlab.backbones.head import Backbone, Stem, check_images, check_sizes, init_convolutions, make_stem


def stage(in_channels: int, out_channels: int) -> nn.Sequential:
    """conv 3x3, BatchNorm, max-pool 2x2, ReLU (a quarter of the ReLUs' work; a max-pool and a ReLU may be swapped)."""
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    return nn.Sequential(OrderedDict(conv=conv, bn=nn.BatchNorm2d(out_channels), pool=nn.MaxPool2d(2), relu=nn.ReLU()))


class CNN3(Backbone):
    """input, stem, layer1, layer2, layer3 (64, 128, 128 channels), pool (flatten), bottleneck (25), features, fc.

    Nguyen et al. (arXiv 2404.08476): 28x28 -> 14 -> 7 -> 3, so 1152 -> 25 -> K, without a nonlinearity between the last two.
    Other image sizes: (H // 8) (W // 8) 2 width values are flattened. stem="cifar" is nothing (Identity); "imagenet" (ours, for
    large images) puts 7x7/2, BatchNorm, ReLU, max-pool/2 before layer1. `bottleneck=None` classifies the flattened map.
    Convolutions start by He's rule (fan-out, normal); the paper does not say.
    Raises ValueError for vectors, for images below 8x8 (32x32 with the imagenet stem) and for sizes below 1.
    """

    def __init__(self, num_classes: int, shape: tuple[int, ...], *, stem: Stem, width: int, bottleneck: int | None) -> None:
        check_images("cnn3", shape, smallest=8, stem=stem)
        check_sizes(num_classes=num_classes, width=width, bottleneck=bottleneck)
        super().__init__()
        channels, height, breadth = shape
        self.stem: nn.Module = nn.Identity()
        if stem == "imagenet":
            self.stem = make_stem(stem, channels, width)
            channels, height, breadth = width, -(-height // 4), -(-breadth // 4)  # both strides round up
        self.layer1 = stage(channels, width)
        self.layer2 = stage(width, 2 * width)
        self.layer3 = stage(2 * width, 2 * width)
        self.pool = nn.Flatten()
        self.add_head(2 * width * (height // 8) * (breadth // 8), num_classes, bottleneck)
        init_convolutions(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.stem(self.input(x_BCHW))
        x_BCHW = self.layer3(self.layer2(self.layer1(x_BCHW)))
        return self.classify(self.pool(x_BCHW))


def cnn3(num_classes: int, shape: tuple[int, ...], *, stem: Stem = "cifar", width: int = 64, bottleneck: int | None = 25) -> CNN3:
    """The Fashion-MNIST network: 251,805 parameters for 10 classes of 1x28x28. See `CNN3`."""
    return CNN3(num_classes, shape, stem=stem, width=width, bottleneck=bottleneck)
