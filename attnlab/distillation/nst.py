"""Neuron selectivity transfer.   Shapes: B batch, C channels of the student, E of the teacher, H height, W width, P = H W."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from attnlab.distillation.feature_term import FeatureTerm, Pair, Shapes, match_size


def kernel(x_BCP: Tensor, y_BEP: Tensor) -> Tensor:
    """``mean_{b,c,e} (x_c . y_e)^2``: the polynomial kernel of degree 2 between the maps of two sets of neurons."""
    return (x_BCP @ y_BEP.transpose(1, 2)).square().mean()


def nst(student_BCHW: Tensor, teacher_BEHW: Tensor) -> Tensor:
    """``k(s, s) + k(t, t) - 2 k(s, t)``, the squared maximum mean discrepancy of maps divided by their norms; of maps of two sizes the
    larger is average-pooled first."""
    ours_BCP, theirs_BEP = (F.normalize(x.flatten(2), dim=2) for x in match_size(student_BCHW, teacher_BEHW))
    return kernel(theirs_BEP, theirs_BEP).detach() + kernel(ours_BCP, ours_BCP) - 2 * kernel(ours_BCP, theirs_BEP)


class NST(FeatureTerm):
    """Neuron selectivity transfer (Huang and Wang, 1707.01219), polynomial kernel: ``weight * sum over pairs of nst(student, teacher)``.

    `places` of the student and `teacher_places` (null: the same) are paired in the order in which they run. ValueError: places that are
    not there, do not pair, or are no maps. `weight` is that of the benchmark of 1910.10699.
    """

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        places: str | Sequence[str] = ("layer*",),
        teacher_places: str | Sequence[str] | None = None,
        weight: float = 50.0,
    ) -> None:
        super().__init__(student_shapes, teacher_shapes, places=places, teacher_places=teacher_places, weight=weight)
        self.maps_only()

    def distance(self, pairs: Sequence[Pair]) -> Tensor:
        return sum(nst(*pair) for pair in pairs)
