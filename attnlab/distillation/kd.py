"""Knowledge distillation by softened class probabilities.   Shapes: B batch, K classes."""

from typing import TYPE_CHECKING

from torch import Tensor, nn

from attnlab.distillation.feature_term import full_precision

if TYPE_CHECKING:
    from attnlab.network import Output


def kd(student_BK: Tensor, teacher_BK: Tensor, *, temperature: float = 4.0) -> Tensor:
    """``T^2 mean_b sum_k p_k (log p_k - log q_k)`` with p = softmax(teacher / T), q = softmax(student / T). Both are logits."""
    log_q_BK = (student_BK / temperature).log_softmax(1)
    log_p_BK = (teacher_BK / temperature).log_softmax(1)
    return temperature**2 * (log_p_BK.exp() * (log_p_BK - log_q_BK)).sum(1).mean()


class KD(nn.Module):
    """Knowledge distillation (Hinton, Vinyals, Dean, 1503.02531): ``weight * T^2 KL(softmax(z_t / T) || softmax(z_s / T))``, batch mean.

    T^2 keeps the gradient's scale as T changes. `temperature` T > 0, `weight` >= 0. The loss (`loss=ce`) stays beside it with its own
    weight: the paper's ``(1 - a) CE + a T^2 KL`` is `distillation.kd.weight=a loss.weight=1-a`. The default is that of the CIFAR
    benchmark of contrastive representation distillation (1910.10699: T 4, a 0.9) but for the weight of CE, which stays 1, not 0.1.
    Uses logits alone. ValueError: T not above 0.
    """

    logits_only = True

    def __init__(self, *, temperature: float = 4.0, weight: float = 0.9) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.temperature, self.weight = temperature, weight

    def forward(self, out: "Output", teacher: "Output") -> Tensor:
        return self.weight * kd(full_precision(out.logits), full_precision(teacher.logits), temperature=self.temperature)
