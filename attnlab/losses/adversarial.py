"""Images that maximise the loss in a neighbourhood: FGSM and PGD.   Shapes: as the images."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.ood.extract import for_gradients


def fgsm(network: nn.Module, x: Tensor, y: Tensor, *, epsilon: Tensor | float) -> Tensor:
    """x + eps sign(grad_x CE(f(x), y)) (Goodfellow et al., arXiv 1412.6572). Unclipped; eps broadcasts over x."""
    return x + epsilon * ascent(network, x, y)


def pgd(
    network: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: Tensor | float,
    step: Tensor | float,
    steps: int,
    low: Tensor | float = -torch.inf,
    high: Tensor | float = torch.inf,
    start: Tensor | None = None,
) -> Tensor:
    """Projected gradient ascent in the box |x' - x| <= eps, low <= x' <= high (Madry et al., arXiv 1706.06083):

    x'_0 = x + start,   x'_{t+1} = P( x'_t + step sign(grad CE(f(x'_t), y)) ),   P clips to the box
    """
    lowest, highest = (x - epsilon).clamp(low, high), (x + epsilon).clamp(low, high)
    moved = (x if start is None else x + start).clamp(lowest, highest)
    for _ in range(steps):
        moved = (moved + step * ascent(network, moved, y)).clamp(lowest, highest)
    return moved


def ascent(network: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The sign of the gradient of the cross-entropy by the images."""
    with for_gradients(x):
        x = x.detach().requires_grad_()
        loss = F.cross_entropy(network(x).logits, y, reduction="sum")
        return torch.autograd.grad(loss, x)[0].sign()
