"""Correlation congruence.   Shapes: B batch, D values of an image's activation."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from attnlab.distillation.feature_term import FeatureTerm, Pair, Shapes


def cc(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """``mean_b sum_d |s_b - t_b|_d |s_{b+1} - t_{b+1}|_d`` over the B - 1 neighbours in the batch, 0 where there are none (B = 1). Two
    activations of one shape."""
    delta_BD = (student_BD - teacher_BD).abs()
    return (delta_BD[:-1] * delta_BD[1:]).sum(1).sum() / max(len(delta_BD) - 1, 1)


class CC(FeatureTerm):
    """Correlation congruence (Peng et al., 1904.01802): ``weight * cc(embedded student, embedded teacher)``, summed over pairs of places.

    Both activations go through a learned linear layer to `dim_embedded` numbers, whose parameters are none of the student's. By default
    of the features before the final layer. ValueError: places that are not there or do not pair; dim_embedded below 1. Differs from the
    paper in: what the authors released is this product over neighbours in the batch, not a Gaussian kernel over all pairs; `weight` and
    the embeddings are those of the benchmark of 1910.10699.
    """

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        places: str | Sequence[str] = ("features",),
        teacher_places: str | Sequence[str] | None = None,
        dim_embedded: int = 128,
        weight: float = 0.02,
    ) -> None:
        super().__init__(student_shapes, teacher_shapes, places=places, teacher_places=teacher_places, weight=weight)
        if dim_embedded < 1:
            raise ValueError(f"dim_embedded must be at least 1, got {dim_embedded}")
        sizes = [(math.prod(ours), math.prod(theirs)) for ours, theirs in self.pair_shapes]
        self.embed_student = nn.ModuleList(nn.Linear(ours, dim_embedded) for ours, _ in sizes)
        self.embed_teacher = nn.ModuleList(nn.Linear(theirs, dim_embedded) for _, theirs in sizes)

    def distance(self, pairs: Sequence[Pair]) -> Tensor:
        embeds = zip(self.embed_student, self.embed_teacher, pairs, strict=True)
        return sum(cc(one(ours.flatten(1)), other(theirs.flatten(1))) for one, other, (ours, theirs) in embeds)
