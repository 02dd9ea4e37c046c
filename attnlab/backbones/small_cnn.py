# B batch, C channels, H height, W width, K classes
"""Small CNNs for small data, of one depth and three widths."""

from collections import OrderedDict

from torch import Tensor, nn

from attnlab.backbones.head import Backbone, Stem, check_images, check_sizes, global_pool, init_convolutions, make_stem


def stage(in_channels: int, out_channels: int) -> nn.Sequential:
    """Two 3x3 convolutions with batch norm and ReLU, then a 2x2 max-pool."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    for number, channels in enumerate((in_channels, out_channels), 1):
        parts[f"conv{number}"] = nn.Conv2d(channels, out_channels, 3, padding=1, bias=False)
        parts[f"bn{number}"] = nn.BatchNorm2d(out_channels)
        parts[f"relu{number}"] = nn.ReLU()
    return nn.Sequential(OrderedDict(parts, pool=nn.MaxPool2d(2)))


class SmallCNN(Backbone):
    """Small CNN: [stem], layer1..layer3 (width, 2 width, 4 width channels), pool (the mean), drop, [bottleneck], features, fc.

    Our reading of the networks of low, mid and high complexity of "A close look at deep learning with small data" (Brigato and Iocchi,
    arXiv 2003.12843), where small networks with dropout beat large ones with few images a class. Known to us: one depth, a base width
    that is scaled, dropout on or off. Ours: six convolutions, batch norm, the widths 8, 24 and 64, dropout .4 of the pooled features.

    dropout: in [0, 1), of the pooled features in training; 0: none. stem="cifar" is nothing (Identity), as in cnn3.
    Raises ValueError for vectors, for images below 8x8 (32x32 with the imagenet stem), sizes below 1, dropout out of range.
    """

    def __init__(
        self, name: str, num_classes: int, shape: tuple[int, ...], *, stem: Stem, width: int, dropout: float, bottleneck: int | None
    ) -> None:
        check_images(name, shape, smallest=8, stem=stem)
        check_sizes(num_classes=num_classes, width=width, bottleneck=bottleneck)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        super().__init__()
        channels = shape[0]
        self.stem: nn.Module = nn.Identity()
        if stem == "imagenet":
            self.stem, channels = make_stem(stem, channels, width), width
        self.layer1, self.layer2, self.layer3 = stage(channels, width), stage(width, 2 * width), stage(2 * width, 4 * width)
        self.pool = global_pool()
        self.drop = nn.Dropout(dropout)
        self.add_head(4 * width, num_classes, bottleneck)
        init_convolutions(self)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = self.stem(self.input(x_BCHW))
        return self.classify(self.drop(self.pool(self.layer3(self.layer2(self.layer1(x_BCHW))))))


def cnn_lc(
    num_classes: int, shape: tuple[int, ...], *, stem: Stem = "cifar", width: int = 8, dropout: float = 0.4, bottleneck: int | None = None
) -> SmallCNN:
    """The small CNN of low complexity, our reading. 18,626 parameters for 10 classes of 3x32x32. See `SmallCNN`."""
    return SmallCNN("cnn_lc", num_classes, shape, stem=stem, width=width, dropout=dropout, bottleneck=bottleneck)


def cnn_mc(
    num_classes: int, shape: tuple[int, ...], *, stem: Stem = "cifar", width: int = 24, dropout: float = 0.4, bottleneck: int | None = None
) -> SmallCNN:
    """The small CNN of middle complexity, our reading. 162,994 parameters for 10 classes of 3x32x32. See `SmallCNN`."""
    return SmallCNN("cnn_mc", num_classes, shape, stem=stem, width=width, dropout=dropout, bottleneck=bottleneck)


def cnn_hc(
    num_classes: int, shape: tuple[int, ...], *, stem: Stem = "cifar", width: int = 64, dropout: float = 0.4, bottleneck: int | None = None
) -> SmallCNN:
    """The small CNN of high complexity, our reading. 1,148,874 parameters for 10 classes of 3x32x32. See `SmallCNN`."""
    return SmallCNN("cnn_hc", num_classes, shape, stem=stem, width=width, dropout=dropout, bottleneck=bottleneck)
