"""Norm loss: pull every filter to unit length."""

import torch
from torch import Tensor, nn


class NormLoss(nn.Module):
    """Penalty on the distance of every filter's L2 norm from one (Georgiou et al., arXiv 2103.06583).

        R = weight * sum over layers l, filters o of (1 - ||W_l[o]||)^2,   gradient 2 weight (1 - 1/||w||) w

    W_l[o] is the o-th filter of a convolution, flattened over (input channels, kernel), or the o-th row of a Linear. Unlike weight decay
    it also lengthens short filters. Every nn.Conv1d/2d/3d and nn.Linear of the network counts, placed components included (the abstract
    names no exception); biases, norm layers and raw parameters do not.

    Args:
        weight: >= 0. The abstract reports little sensitivity to it; sweep 1e-4 to 1e-1. The paper's own value is not established here
            [our choice: 0.01]; the Ranger21 optimizer, which has the authors' code as source, takes 1e-4 as a decoupled step.

    Shapes: called with the network, returns a 0-d fp32 tensor (fp64 for fp64 weights), already weighted. A filter of norm 0 gets no
    gradient (the direction is undefined) but counts in the value. Raises ValueError for a negative weight.

    Our reading: it replaces weight decay on these tensors, so compare with `optimizer.weight_decay=0` too. With BatchNorm after a
    convolution the function does not depend on the norm, so there the penalty acts through the effective learning rate.
    """

    def __init__(self, *, weight: float = 0.01):
        super().__init__()
        if not weight >= 0:
            raise ValueError(f"weight must be at least 0, got {weight}")
        self.weight = weight

    def forward(self, network: nn.Module) -> Tensor:
        weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear)]
        if not weights:
            raise ValueError("norm_loss found no convolution and no Linear in the network")
        with torch.autocast(weights[0].device.type, enabled=False):
            # Norms of rows have no foreach form; one concatenation makes the rest one kernel for the whole network.
            norms = torch.cat([torch.linalg.vector_norm(w, dim=tuple(range(1, w.ndim))) for w in weights])
            return self.weight * (1 - norms).square().sum()

    def extra_repr(self) -> str:
        return f"weight={self.weight}"
