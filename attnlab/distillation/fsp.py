"""Flow of the solution procedure.   Shapes: B batch, C, D channels of two successive places, H height, W width."""

import itertools
from collections.abc import Sequence

from torch import Tensor

from attnlab.distillation.feature_term import FeatureTerm, Pair, Shapes, match_size


def flow(first_BCHW: Tensor, second_BDHW: Tensor) -> Tensor:
    """``G_cd = mean_hw first_c second_d``, (B, C, D); of maps of two sizes the larger is average-pooled first."""
    first_BCHW, second_BDHW = match_size(first_BCHW, second_BDHW)
    first_BCP, second_BDP = first_BCHW.flatten(2), second_BDHW.flatten(2)
    return first_BCP @ second_BDP.transpose(1, 2) / first_BCP.shape[2]


def fsp(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    """Mean squared difference of the flow matrices, summed over neighbours. Lists of maps, channels equal in pairs."""
    ours, theirs = ([flow(one, two) for one, two in itertools.pairwise(maps)] for maps in (student, teacher))
    return sum((one - other).square().mean() for one, other in zip(ours, theirs, strict=True))


class FSP(FeatureTerm):
    """Flow of the solution procedure (Yim et al., CVPR 2017): ``weight * sum over neighbours of mean (G_s - G_t)^2``.

    `places` of the student and `teacher_places` (null: the same) are paired in the order in which they run: at least two, with equal
    channels, so the teacher is a deeper network of the student's widths. ValueError otherwise. Differs from the paper in: trained along
    with the loss, not in a stage before; `weight` is that of the benchmark of 1910.10699.
    """

    fewest_places = 2

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
        for (place, other), (ours, theirs) in zip(self.pairs_of_places(), self.pair_shapes, strict=True):
            if ours[0] != theirs[0]:
                raise ValueError(
                    f"places: {place} has {ours[0]} channels and {other} of the teacher {theirs[0]}; fsp needs as many, so take "
                    "a teacher of the student's width, or at, sp or rkd"
                )

    def distance(self, pairs: Sequence[Pair]) -> Tensor:
        student, teacher = zip(*pairs, strict=True)
        return fsp(student, teacher)
