"""Decoupled knowledge distillation.   Shapes: B batch, K classes."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attnlab.distillation.feature_term import full_precision

if TYPE_CHECKING:
    from attnlab.network import Output

OUT = -1000.0  # added to a logit: no probability is left of it in any precision


def dkd(
    student_BK: Tensor, teacher_BK: Tensor, target_B: Tensor, *, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0
) -> Tensor:
    """``T^2 (alpha KL(b_t || b_s) + beta KL(p'_t || p'_s))``, batch means: b is (target class, all others), p' is over the others alone."""
    target_BK = torch.zeros_like(student_BK).scatter(1, target_B[:, None], 1.0)  # one_hot would read the device
    log_b_B2, log_others_BK = zip(*(_decoupled(logits_BK / temperature, target_BK) for logits_BK in (student_BK, teacher_BK)), strict=True)
    return temperature**2 * (alpha * _divergence(*log_b_B2) + beta * _divergence(*log_others_BK))


def _decoupled(logits_BK: Tensor, target_BK: Tensor) -> tuple[Tensor, Tensor]:
    log_p_BK = logits_BK.log_softmax(1)
    binary = ((log_p_BK * target_BK).sum(1), (log_p_BK + OUT * target_BK).logsumexp(1))
    return torch.stack(binary, 1), (logits_BK + OUT * target_BK).log_softmax(1)


def _divergence(log_q: Tensor, log_p: Tensor) -> Tensor:
    """KL(p || q), mean over the batch."""
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()


class DKD(nn.Module):
    """Decoupled knowledge distillation (Zhao et al., 2203.08679): ``weight * min(1, progress / warmup) * dkd(...)``; labels are classes.

    `alpha`, `beta` weigh the parts of the target class and of the others (the paper chooses `beta` for each teacher, 0.25 to 8),
    `temperature` T > 0. `warmup`: the fraction of training in which the term grows from 0, the paper's 20 of 240 epochs; 0: none. The
    loss stays beside it with weight 1, as in the paper. Uses logits alone. ValueError: T not above 0; warmup outside [0, 1]; soft labels.
    """

    logits_only = True

    def __init__(
        self, *, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0, warmup: float = 1 / 12, weight: float = 1.0
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if not 0 <= warmup <= 1:
            raise ValueError(f"warmup is a fraction of training in [0, 1], got {warmup}")
        self.alpha, self.beta, self.temperature, self.warmup, self.weight = alpha, beta, temperature, warmup, weight

    def forward(self, out: "Output", teacher: "Output", target: Tensor, progress: Tensor) -> Tensor:
        if target.is_floating_point():
            raise ValueError("dkd parts the target class from the others, so it takes no soft labels; use kd, or drop what mixes images")
        logits = full_precision(out.logits), full_precision(teacher.logits)
        term = dkd(*logits, target, alpha=self.alpha, beta=self.beta, temperature=self.temperature)
        grown = (progress / self.warmup).clamp(max=1) if self.warmup else 1.0
        return self.weight * grown * term
