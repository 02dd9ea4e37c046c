"""Norm loss as a step of its own: after every update, filters are pulled to unit length."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class NormLossStep:
    """Norm loss apart from the gradient, as weight decay is in AdamW (Georgiou et al., arXiv 2103.06583; the step is Ranger21's).

        w <- w (1 - 2 lr weight (1 - 1 / (||w|| + eps)))   for every filter w, after every step; lr is the step's, of the filter's group

    With plain SGD this is the gradient step of `regularizer=norm_loss` (to first order in lr); an adaptive optimizer would rescale the
    penalty's gradient, and momentum would smear it, which this leaves out. Filters and layers are those of `norm_loss`: the output
    channels of convolutions and the rows of Linears, placed components included.

    Args:
        weight: lambda, >= 0; 1e-4 in Ranger21, which has the authors' code as its source. It takes the place of weight decay: set
            `optimizer.weight_decay=0`.
        eps: > 0, added to the norm; a filter of norm 0 stays where it is.

    Raises ValueError: values out of range, a network without convolution and Linear. Name it before `ema` and `swa`, which then average the
    weights after the step. Differs from Ranger21 in: it acts on every layer (there, by a slip, on the last tensor of a loop alone), and
    not on the vectors of norms and biases.
    """

    every = 1
    single = True

    def __init__(self, *, weight: float = 1e-4, eps: float = 1e-8) -> None:
        if not weight >= 0:
            raise ValueError(f"weight must be at least 0, got {weight}")
        if not eps > 0:
            raise ValueError(f"eps must be above 0, got {eps}")
        self.weight, self.eps = weight, eps

    def on_fit_start(self, learner: "Learner") -> None:
        layers = [m for m in learner.network.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)]
        filters = {id(layer.weight) for layer in layers}
        if not filters:
            raise ValueError("norm_loss_step found no convolution and no Linear in the network")
        groups = learner.optimizer.param_groups if learner.optimizer else []  # none where a trained network is only tested
        self.groups = [(group, [weight for weight in group["params"] if id(weight) in filters]) for group in groups]

    def on_step(self, learner: "Learner", step: int) -> None:
        for group, weights in self.groups:
            if weights:
                shrink_to_unit(weights, 2 * group["lr"] * self.weight, eps=self.eps)


@torch.no_grad()
def shrink_to_unit(weights: list[Tensor], rate: float, *, eps: float) -> None:
    """Multiply every filter (a row of a weight) by 1 - rate (1 - 1 / (norm + eps)), in place."""
    norms = [torch.linalg.vector_norm(weight, dim=tuple(range(1, weight.ndim)), keepdim=True) for weight in weights]
    torch._foreach_add_(norms, eps)
    torch._foreach_reciprocal_(norms)
    torch._foreach_mul_(norms, rate)
    torch._foreach_add_(norms, 1 - rate)
    torch._foreach_mul_(weights, norms)
