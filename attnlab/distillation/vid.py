"""Variational information distillation.   Shapes: B batch, C channels of the student, E of the teacher, H height, W width."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.distillation.feature_term import FeatureTerm, Pair, Shapes, match_size


class Variational(nn.Module):
    """``mean of 1/2 ((mu(student) - teacher)^2 / v + log v)``: -log of a Gaussian of the teacher's map given the student's.

    mu is three 1x1 convolutions (`hidden` channels between, ReLU), v a variance a channel, softplus of a parameter, plus `eps`.
    """

    def __init__(self, num_student: int, num_teacher: int, *, hidden: int | None = None, variance: float = 5.0, eps: float = 1e-5) -> None:
        super().__init__()
        hidden = num_teacher if hidden is None else hidden
        widths = (num_student, hidden, hidden, num_teacher)
        convs = [nn.Conv2d(one, two, 1, bias=False) for one, two in itertools.pairwise(widths)]
        self.regressor = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2])
        self.log_scale = nn.Parameter(torch.full((num_teacher,), math.log(math.expm1(variance - eps))))
        self.eps = eps

    def forward(self, student_BCHW: Tensor, teacher_BEHW: Tensor) -> Tensor:
        student_BCHW, teacher_BEHW = match_size(student_BCHW, teacher_BEHW)
        variance_E11 = (F.softplus(self.log_scale) + self.eps)[:, None, None]
        error_BEHW = self.regressor(student_BCHW) - teacher_BEHW
        return 0.5 * (error_BEHW.square() / variance_E11 + variance_E11.log()).mean()


class VID(FeatureTerm):
    """Variational information distillation (Ahn et al., 1904.05835): ``weight * sum over pairs of -log q(teacher | student)``.

    A lower bound on the mutual information of both maps; q is a Gaussian that is learned with the student and is none of its parameters
    (`Variational`); `variance` is the one it begins with. Of maps of two sizes the larger is average-pooled. ValueError: places that are
    not there, do not pair, or are no maps; a variance not above 1e-5. `weight` is that of the benchmark of 1910.10699.
    """

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        places: str | Sequence[str] = ("layer*",),
        teacher_places: str | Sequence[str] | None = None,
        variance: float = 5.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__(student_shapes, teacher_shapes, places=places, teacher_places=teacher_places, weight=weight)
        self.maps_only()
        if not variance > 1e-5:
            raise ValueError(f"variance must be above 1e-5, got {variance}")
        self.given = nn.ModuleList(Variational(ours[0], theirs[0], variance=variance) for ours, theirs in self.pair_shapes)

    def distance(self, pairs: Sequence[Pair]) -> Tensor:
        return sum(given(*pair) for given, pair in zip(self.given, pairs, strict=True))
