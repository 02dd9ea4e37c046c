"""Loss that places every class at a vector of a fixed orthonormal basis."""
# B batch, K classes = dimensions of the logits

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from attnlab.network import Output


class FixedBasis(nn.Module):
    """Logits pulled to the direction of their class's basis vector and away from all others.

        c = z / |z|;   L = mean over the batch of (1 - c_y)^2 + weight * sum_{j != y} c_j^2
    Our reading of the orthogonal loss (Cancela et al., "Can data placement be effective for neural networks classification tasks?",
    ICPR 2020). Established, by its abstract: deep features are forced onto a predefined orthogonal basis. Ours: the loss itself, and that
    the basis is e_1 .. e_K of the logits. A Linear comes before the logits, so any other orthonormal basis is the same up to a rotation of
    its weights. Predictions are argmax_j z_j = argmax_j c_j. Cosines know no confidence: NLL and ECE of softmax(z) say little.

    weight: >= 0. With labels that are probabilities q (mixup, cutmix) the loss is their mean, sum_k q_k L(y = k).
    Raises ValueError for a weight below 0. Returns {"fixed_basis": scalar}, in fp32 or better; |z| = 0 gives c = 0.
    """

    soft_targets = True
    needs_fc = False
    takes_copies = False

    def __init__(self, num_classes: int, dim: int, *, weight: float = 1.0):
        super().__init__()
        if not 0 <= weight < float("inf"):
            raise ValueError(f"weight must be at least 0 and finite, got {weight}")
        self.weight = weight

    def forward(self, out: "Output", y: Tensor) -> dict[str, Tensor]:
        with torch.autocast(y.device.type, enabled=False):
            z_BK = out.logits.to(torch.promote_types(out.logits.dtype, torch.float32))
            c_BK = F.normalize(z_BK, dim=1)
            loss_BK = (1 - c_BK) ** 2 + self.weight * ((c_BK**2).sum(1, keepdim=True) - c_BK**2)  # were k the class
            if y.is_floating_point():
                return {"fixed_basis": (loss_BK * y.to(loss_BK.dtype)).sum(1).mean()}
            return {"fixed_basis": loss_BK.gather(1, y[:, None]).mean()}
