"""Relational knowledge distillation.   Shapes: B batch, D values of an image's activation."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlab.distillation.feature_term import FeatureTerm, Pair, Shapes


def distances(x_BD: Tensor, *, eps: float = 1e-12) -> Tensor:
    """Euclidean distances (B, B) divided by the mean over the B (B - 1) pairs; 0 on the diagonal."""
    num = len(x_BD)
    square_B = x_BD.square().sum(1)
    d_BB = (square_B[:, None] + square_B - 2 * x_BD @ x_BD.T).clamp(min=eps).sqrt()
    d_BB = d_BB * (1 - torch.eye(num, dtype=d_BB.dtype, device=d_BB.device))
    return d_BB / (d_BB.sum() / max(num * (num - 1), 1)).clamp(min=eps)


def angles(x_BD: Tensor) -> Tensor:
    """Cosines (B, B, B) of the angle at i between the directions to j and to k; 0, without a gradient, where j or k is where i is."""
    step_BBD = x_BD[None] - x_BD[:, None]
    apart_BB1 = (step_BBD.detach() != 0).any(2, keepdim=True)  # normalising a step of 0 has a gradient of 1e12
    direction_BBD = F.normalize(torch.where(apart_BB1, step_BBD, 0.0), dim=2)
    return direction_BBD @ direction_BBD.transpose(1, 2)


def rkd_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth L1 between the distances of both, mean over all B^2 entries. Activations (B, ...) of any two shapes."""
    return F.smooth_l1_loss(distances(student.flatten(1)), distances(teacher.flatten(1)))


def rkd_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Smooth L1 between the angles of both, mean over all B^3 entries. Activations (B, ...) of any two shapes."""
    return F.smooth_l1_loss(angles(student.flatten(1)), angles(teacher.flatten(1)))


class RKD(FeatureTerm):
    """Relational knowledge distillation (Park et al., 1904.05068): ``weight (distance RKD-D + angle RKD-A)``, summed over pairs of places.

    `distance` 25 and `angle` 50 are the paper's. By default of the features before the final layer. Memory: (B, B, D) and (B, B, B)
    numbers. ValueError: places that are not there or do not pair. The means include the diagonal, as the authors' do; every pair of
    images counts in the mean distance, also coinciding ones, so that nothing is read from the device.
    """

    def __init__(
        self,
        student_shapes: Shapes,
        teacher_shapes: Shapes,
        *,
        places: str | Sequence[str] = ("features",),
        teacher_places: str | Sequence[str] | None = None,
        distance: float = 25.0,
        angle: float = 50.0,
        weight: float = 1.0,
    ) -> None:
        super().__init__(student_shapes, teacher_shapes, places=places, teacher_places=teacher_places, weight=weight)
        self.distance_weight, self.angle_weight = distance, angle

    def distance(self, pairs: Sequence[Pair]) -> Tensor:
        return sum(self.distance_weight * rkd_distance(*pair) + self.angle_weight * rkd_angle(*pair) for pair in pairs)
