"""Distillation from a stronger teacher.   Shapes: B batch, K classes."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from attnlab.distillation.feature_term import full_precision

if TYPE_CHECKING:
    from attnlab.network import Output


def correlation(x: Tensor, y: Tensor, *, eps: float = 1e-8) -> Tensor:
    """Pearson's correlation of corresponding rows, mean over rows."""
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    return ((x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1) + eps)).mean()


def dist(student_BK: Tensor, teacher_BK: Tensor, *, beta: float = 2.0, gamma: float = 2.0, temperature: float = 1.0) -> Tensor:
    """``T^2 (beta (1 - corr over classes) + gamma (1 - corr over images))`` of the class probabilities; both are logits."""
    p_BK, q_BK = (student_BK / temperature).softmax(1), (teacher_BK / temperature).softmax(1)
    inter, intra = 1 - correlation(p_BK, q_BK), 1 - correlation(p_BK.T, q_BK.T)
    return temperature**2 * (beta * inter + gamma * intra)


class DIST(nn.Module):
    """DIST (Huang et al., 2205.10536): ``weight * dist(z_s, z_t)``: the student keeps the teacher's relations, not its probabilities.

    `beta` weighs the correlation of an image's probabilities over the classes, `gamma` that of a class's over the batch; `temperature`
    T > 0 (the paper: 1 on ImageNet, 4 on CIFAR-100). The loss stays beside it with weight 1, as in the paper. Uses logits alone.
    ValueError: T not above 0.
    """

    logits_only = True

    def __init__(self, *, beta: float = 2.0, gamma: float = 2.0, temperature: float = 1.0, weight: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.beta, self.gamma, self.temperature, self.weight = beta, gamma, temperature, weight

    def forward(self, out: "Output", teacher: "Output") -> Tensor:
        logits = full_precision(out.logits), full_precision(teacher.logits)
        return self.weight * dist(*logits, beta=self.beta, gamma=self.gamma, temperature=self.temperature)
