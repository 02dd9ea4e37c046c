"""Similarity-preserving distillation.   Shapes: B batch, D values of an image's activation."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from attnlab.distillation.feature_term import FeatureTerm, Pair, Shapes


def similarity(x: Tensor) -> Tensor:
    """The Gram matrix (B, B) of the flattened activations, each row divided by its norm."""
    x_BD = x.flatten(1)
    return F.normalize(x_BD @ x_BD.T)


def sp(student: Tensor, teacher: Tensor) -> Tensor:
    """``||G_s - G_t||_F^2 / B^2`` of the row-normalised Gram matrices. Activations (B, ...) of any two shapes."""
    return (similarity(teacher) - similarity(student)).square().mean()


class SP(FeatureTerm):
    """Similarity-preserving knowledge distillation (Tung and Mori, 1907.09682): ``weight * sum over pairs of sp(student, teacher)``.

    `places` of the student and `teacher_places` (null: the same) are paired in the order in which they run; shapes may differ.
    ValueError: places that are not there or do not pair. `weight` is that of the benchmark of 1910.10699, as the paper's gamma.
    """

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        places: str | Sequence[str] = ("layer*",),
        teacher_places: str | Sequence[str] | None = None,
        weight: float = 3000.0,
    ) -> None:
        super().__init__(student_shapes, teacher_shapes, places=places, teacher_places=teacher_places, weight=weight)

    def distance(self, pairs: Sequence[Pair]) -> Tensor:
        return sum(sp(*pair) for pair in pairs)
