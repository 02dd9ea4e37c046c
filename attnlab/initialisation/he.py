"""He initialisation: weights whose variance keeps the activations'."""

from typing import Literal

import torch
from torch import nn


class He:
    """Normal weights of variance 2 / n in every convolution and Linear but the last, biases 0 (He et al., arXiv 1502.01852).

    Args:
        mode: n is the fan-in (activations keep their variance forwards) or the fan-out (gradients backwards).
        slope: >= 0, of the leaky ReLUs that follow: variance 2 / ((1 + slope^2) n).
        centre: subtract each filter's mean, so that an activation's mean, which is above 0 after a ReLU, is not passed on
            (Oyedotun et al.'s PlainNets, our reading: their recipe is not known to us; `callback=weight_centring` keeps it so).

    The final layer `fc` keeps the backbone's own start, as do norms. ValueError: slope below 0.
    """

    def __init__(self, *, mode: Literal["fan_in", "fan_out"] = "fan_in", slope: float = 0.0, centre: bool = False) -> None:
        if slope < 0:
            raise ValueError(f"slope must be 0 or more, got {slope}")
        self.mode, self.slope, self.centre = mode, slope, centre

    @torch.no_grad()
    def __call__(self, backbone: nn.Module) -> None:
        for name, layer in backbone.named_modules():
            if isinstance(layer, nn.Linear | nn.modules.conv._ConvNd) and name != "fc":
                nn.init.kaiming_normal_(layer.weight, a=self.slope, mode=self.mode, nonlinearity="leaky_relu")
                if self.centre and layer.weight[0].numel() > 1:
                    layer.weight.sub_(layer.weight.mean(tuple(range(1, layer.weight.ndim)), keepdim=True))
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
