"""Factor transfer, its loss.   Shapes: B batch, C channels of the student, E of the teacher, H height, W width."""

from collections.abc import Sequence

from torch import Tensor

from attnlab.distillation.at import attention_map
from attnlab.distillation.feature_term import FeatureTerm, Pair, Shapes, match_size


def ft(student_BCHW: Tensor, teacher_BEHW: Tensor) -> Tensor:
    """``mean_{b,hw} |Q_s / ||Q_s|| - Q_t / ||Q_t|||`` with Q = mean_c x_c^2; of maps of two sizes the larger is average-pooled first."""
    ours, theirs = match_size(student_BCHW, teacher_BEHW)
    return (attention_map(ours) - attention_map(theirs)).abs().mean()


class FT(FeatureTerm):
    """The loss of factor transfer (Kim, Park, Kwak, 1802.04977) on the maps themselves: ``weight * sum of ft(student, teacher)``.

    By default at `layer4`, the last maps. ValueError: places that are not there, do not pair, or are no maps. Differs from the paper in:
    there is no paraphraser, which the paper trains on the teacher's maps in a stage before, and no translator: the factors are the maps.
    The loss is that of the benchmark of 1910.10699 (there p1 = 2, p2 = 1), and so is `weight`.
    """

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        places: str | Sequence[str] = ("layer4",),
        teacher_places: str | Sequence[str] | None = None,
        weight: float = 200.0,
    ) -> None:
        super().__init__(student_shapes, teacher_shapes, places=places, teacher_places=teacher_places, weight=weight)
        self.maps_only()

    def distance(self, pairs: Sequence[Pair]) -> Tensor:
        return sum(ft(*pair) for pair in pairs)
