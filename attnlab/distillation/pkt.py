"""Probabilistic knowledge transfer.   Shapes: B batch, D values of an image's activation."""

from collections.abc import Sequence

from torch import Tensor

from attnlab.distillation.feature_term import FeatureTerm, Pair, Shapes


def affinities(x_BD: Tensor, *, eps: float = 1e-7) -> Tensor:
    """``P_ij = k_ij / sum_j k_ij`` with k_ij = (1 + cos(x_i, x_j)) / 2, (B, B)."""
    x_BD = x_BD / (x_BD.norm(dim=1, keepdim=True) + eps)
    kernel_BB = (1 + x_BD @ x_BD.T) / 2
    return kernel_BB / kernel_BB.sum(1, keepdim=True)


def pkt(student: Tensor, teacher: Tensor, *, eps: float = 1e-7) -> Tensor:
    """``mean_ij T_ij log((T_ij + eps) / (S_ij + eps))`` of both affinities. Activations (B, ...) of any two shapes."""
    ours_BB, theirs_BB = affinities(student.flatten(1), eps=eps), affinities(teacher.flatten(1), eps=eps)
    return (theirs_BB * ((theirs_BB + eps) / (ours_BB + eps)).log()).mean()


class PKT(FeatureTerm):
    """Probabilistic knowledge transfer (Passalis and Tefas, 1803.10837): ``weight * KL of affinities``, summed over pairs of places.

    By default of the features before the final layer. ValueError: places that are not there or do not pair. As in the authors' code: the
    mean over all B^2 entries, the diagonal included. `weight` is that of the benchmark of 1910.10699.
    """

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        places: str | Sequence[str] = ("features",),
        teacher_places: str | Sequence[str] | None = None,
        weight: float = 30000.0,
    ) -> None:
        super().__init__(student_shapes, teacher_shapes, places=places, teacher_places=teacher_places, weight=weight)

    def distance(self, pairs: Sequence[Pair]) -> Tensor:
        return sum(pkt(*pair) for pair in pairs)
