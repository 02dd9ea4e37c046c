"""Hints (FitNets).   Shapes: B batch, C channels of the student, E of the teacher, H height, W width, D features."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.distillation.feature_term import FeatureTerm, Pair, Shape, Shapes


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference of two activations of one shape."""
    return F.mse_loss(student, teacher)


def regressor(student: Shape, teacher: Shape) -> nn.Module:
    """From a student's activation to the shape of a teacher's: a convolution that makes the size fit, BatchNorm and ReLU; of vectors, a
    linear layer. ValueError: a map to a vector, or a student's map that is smaller than the teacher's and not half as large.
    """
    if len(student) == len(teacher) == 1:
        return nn.Linear(student[0], teacher[0])
    if len(student) != 3 or len(teacher) != 3:
        raise ValueError(f"places: {student} of the student and {teacher} of the teacher: give maps or vectors in both")
    sizes = list(zip(student[1:], teacher[1:], strict=True))
    if all(ours == 2 * theirs for ours, theirs in sizes):
        conv = nn.Conv2d(student[0], teacher[0], 3, stride=2, padding=1)
    elif all(2 * ours == theirs for ours, theirs in sizes):
        conv = nn.ConvTranspose2d(student[0], teacher[0], 4, stride=2, padding=1)
    elif all(ours >= theirs for ours, theirs in sizes):
        conv = nn.Conv2d(student[0], teacher[0], [1 + ours - theirs for ours, theirs in sizes])
    else:
        raise ValueError(f"places: a map {student} of the student cannot follow {teacher} of the teacher; choose places of like size")
    return nn.Sequential(conv, nn.BatchNorm2d(teacher[0]), nn.ReLU())


class Hint(FeatureTerm):
    """FitNets (Romero et al., 1412.6550): ``weight * mean (r(student) - teacher)^2``, summed over pairs of places; r is learned with it.

    By default at `layer2`, the middle of a network of four groups of layers. r is a module of the term: its parameters are trained with
    the student's and are none of its own. ValueError: places that are not there, do not pair, or do not fit (`regressor`).
    Differs from the paper in: trained along with the loss, not in a stage before; a BatchNorm in r; both, and `weight`, as in the
    benchmark of 1910.10699.
    """

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        places: str | Sequence[str] = ("layer2",),
        teacher_places: str | Sequence[str] | None = None,
        weight: float = 100.0,
    ) -> None:
        super().__init__(student_shapes, teacher_shapes, places=places, teacher_places=teacher_places, weight=weight)
        self.regressors = nn.ModuleList(regressor(*shapes) for shapes in self.pair_shapes)

    def distance(self, pairs: Sequence[Pair]) -> Tensor:
        return sum(hint(follow(ours), theirs) for follow, (ours, theirs) in zip(self.regressors, pairs, strict=True))
