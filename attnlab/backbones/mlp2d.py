# B batch, D values, K classes
"""A small multi-layer perceptron for vectors, such as the points of two_moons."""

from collections import OrderedDict

from torch import Tensor, nn

from attnlab.backbones.head import Backbone, check_sizes


class MLP(Backbone):
    """input, layer1, layer2, layer3 (each linear, relu), [bottleneck], features, fc; forward(x_BD) -> logits_BK. PyTorch's start.

    Raises ValueError for images and for sizes below 1.
    """

    def __init__(self, num_classes: int, shape: tuple[int, ...], *, width: int, bottleneck: int | None) -> None:
        if len(shape) != 1:
            given = "x".join(str(size) for size in shape)
            raise ValueError(f"model=mlp2d takes vectors (D,); data gives images of {given}: use model=resnet18 or model=cnn3")
        check_sizes(num_classes=num_classes, width=width, bottleneck=bottleneck, dimension=shape[0])
        super().__init__()
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(OrderedDict(linear=nn.Linear(dim, width), relu=nn.ReLU())) for dim in (shape[0], width, width)
        )
        self.add_head(width, num_classes, bottleneck)

    def forward(self, x_BD: Tensor) -> Tensor:
        return self.classify(self.layer3(self.layer2(self.layer1(self.input(x_BD)))))


def mlp2d(num_classes: int, shape: tuple[int, ...], *, width: int = 128, bottleneck: int | None = None) -> MLP:
    """Three hidden layers of `width` values. See `MLP`."""
    return MLP(num_classes, shape, width=width, bottleneck=bottleneck)
