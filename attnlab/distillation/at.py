"""Attention transfer.   Shapes: B batch, C channels of the student, E of the teacher, H height, W width."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from attnlab.distillation.feature_term import FeatureTerm, Pair, Shapes, match_size


def attention_map(x_BCHW: Tensor) -> Tensor:
    """``Q / ||Q||`` with Q = mean_c x_c^2, flattened: (B, H W)."""
    return F.normalize(x_BCHW.square().mean(1).flatten(1))


def at(student_BCHW: Tensor, teacher_BEHW: Tensor) -> Tensor:
    """``mean_{b,hw} (Q_s / ||Q_s|| - Q_t / ||Q_t||)^2``; of maps of two sizes the larger is average-pooled first."""
    ours, theirs = match_size(student_BCHW, teacher_BEHW)
    return (attention_map(ours) - attention_map(theirs)).square().mean()


class AT(FeatureTerm):
    """Activation-based attention transfer (Zagoruyko and Komodakis, 1612.03928): ``weight * sum over pairs of at(student, teacher)``.

    `places`: maps of the student, `teacher_places` those of the teacher (null: the same), paired in the order in which they run.
    ValueError: places that are not there, do not pair, or are no maps. Differs from the paper in: mean of squared differences in place of
    the norm of the difference, as in the authors' code; `weight` is that of the benchmark of 1910.10699.
    """

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        places: str | Sequence[str] = ("layer*",),
        teacher_places: str | Sequence[str] | None = None,
        weight: float = 1000.0,
    ) -> None:
        super().__init__(student_shapes, teacher_shapes, places=places, teacher_places=teacher_places, weight=weight)
        self.maps_only()

    def distance(self, pairs: Sequence[Pair]) -> Tensor:
        return sum(at(*pair) for pair in pairs)
