"""Deep mutual learning.   Shapes: B batch, K classes."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.distillation.feature_term import full_precision
from attnlab.distillation.kd import kd

if TYPE_CHECKING:
    from attnlab.network import Network, Output


def dml(student_BK: Tensor, peer_BK: Tensor) -> Tensor:
    """``KL(p_peer || p_student)``, batch mean; both are logits, and the peer has no gradient of it."""
    return kd(student_BK, peer_BK.detach(), temperature=1.0)


class DML(nn.Module):
    """Deep mutual learning (Zhang et al., 1706.00384), two networks: each learns from the labels and from what the other says of them.

        student:  loss + weight KL(p_peer || p_student)          the term `dml`
        peer:     CE   + weight KL(p_student || p_peer)          the term `dml_peer`

    The peer is a second network of the run's own configuration with other weights, trained by the same optimizer beside the student; it
    is none of the student's parameters, and the student alone is tested. There is no teacher. `weight` >= 0, the paper's 1.
    Differs from the authors' code in: no 1e-8 inside the logarithms, as in the paper; both networks take their step at the same time,
    from the same outputs, where the paper updates them in turn.
    """

    def __init__(self, make_peer: "Callable[[], Network]", *, weight: float = 1.0) -> None:
        super().__init__()
        self.peer, self.weight = make_peer(), weight

    def forward(self, x: Tensor, out: "Output", target: Tensor, progress: Tensor) -> dict[str, Tensor]:
        peer = self.peer(x, target, progress)
        ours, theirs = full_precision(out.logits), full_precision(peer.logits)
        own = F.cross_entropy(theirs, target) + self.weight * dml(theirs, ours)
        return {"dml": self.weight * dml(ours, theirs), "dml_peer": sum(self.peer.penalties().values(), own)}
