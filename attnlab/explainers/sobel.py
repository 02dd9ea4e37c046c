"""A control: edges.   Legend: B batch, C channels, H, W image size."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Sobel:
    """Magnitude of the image's gradient by Sobel's filters, summed over channels; the border is repeated.

    What guided backprop and its kin show (Adebayo et al., NeurIPS 2018) without any network: an explainer must beat it.
    """

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        smooth, slope = torch.tensor([1.0, 2.0, 1.0]).to(x_BCHW) / 4, torch.tensor([-1.0, 0.0, 1.0]).to(x_BCHW) / 2
        weight_2133 = torch.stack([smooth[:, None] * slope, slope[:, None] * smooth])[:, None]
        images = F.pad(x_BCHW, (1, 1, 1, 1), mode="replicate").flatten(0, 1)[:, None]
        with torch.autocast(x_BCHW.device.type, enabled=False):
            edges = F.conv2d(images, weight_2133).norm(dim=1).view_as(x_BCHW)
        return edges.sum(1, keepdim=True)
