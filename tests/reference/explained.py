"""The network of the stored explanations (golden/explainers.npz), and networks that compute their ReLUs in other ways."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.network import Network
from tests.golden_numbers import golden


class Small(nn.Module):
    """The network of the stored maps (relu1 = features.1, relu2 = features.4, relu3 = features.7)."""

    def __init__(self, *, inplace: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace), nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(inplace), nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(inplace), nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip
        self.classifier = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).flatten(1))


class Functional(Small):
    """The same, with functions in place of modules."""

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.features[0](x)), 2)
        x = torch.max_pool2d(self.features[3](x).relu_(), 3, 2, 1)
        return self.classifier(F.relu(self.features[6](x), inplace=True).mean((2, 3)))


def small(module: nn.Module | None = None) -> Network:
    """`module`, by default Small(), with the stored weights, in fp64."""
    backbone = (Small() if module is None else module).double()
    backbone.load_state_dict(golden("explainers", "sd_"))
    return Network(backbone, shape=(3, 32, 32), num_classes=5)


def drawn(map_B1HW: Tensor) -> Tensor:
    """(B, H, W) from 0 to 1, as the grad-cam library gives its maps; before interpolation it does the same, so 1e-7 counts twice there."""
    map_BHW = map_B1HW[:, 0] - map_B1HW[:, 0].amin((1, 2), keepdim=True)
    return map_BHW / (1e-7 + map_BHW.amax((1, 2), keepdim=True))


def hooks(network: nn.Module) -> list[int]:
    return [len(module._forward_hooks) + len(module._forward_pre_hooks) + len(module._backward_hooks or ()) for module in network.modules()]
