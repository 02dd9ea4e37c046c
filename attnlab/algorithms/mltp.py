"""MLTP: a step on one batch must help on the next, too."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call

from attnlab.algorithms.supervised import Supervised
from attnlab.config.targets import ConfigError
from attnlab.network import Output

if TYPE_CHECKING:
    from attnlab.training.epoch import Batch
    from attnlab.training.learner import Learner


class MLTP(Supervised):
    """Meta-learning training procedure (Deng and Zhang, arXiv 2002.12455), in our reading: a batch is a task, as in MAML (1703.03400), and
    the step on it must help on a new batch. That is established; the objective below, alpha and beta are not.

        min_w  L(w; B1) + beta L(w - alpha grad L(w; B1); B2)

    B1 and B2 are the halves of a batch (of odd ones B2 has one image more), so a step sees as many images as a plain one. The terms of the
    second part are called `next_...`. With `second_order` the gradient goes through the inner step, else it stops there. To first order
    the second part is L(w; B2) - alpha <g1, g2>: it rewards gradients that agree.

    Args:
        alpha: inner step, >= 0; null: the learning rate of the step. The paper's choice is not known to us.
        beta: weight of the second part, >= 0 (1, ours). second_order: a step costs about three with it, about two without.

    Raises ValueError: a value out of range; ConfigError for 16-mixed, whose scale the inner gradient would lack.
    Differs from a single objective in: batch norm takes its statistics of both halves in turn.
    """

    eager = True

    takes_label_sets = False

    def __init__(self, *, alpha: float | None = 0.01, beta: float = 1.0, second_order: bool = True) -> None:
        if not ((alpha or 0) >= 0 and beta >= 0):
            raise ValueError(f"alpha and beta must be 0 or more, got {alpha} and {beta}")
        self.alpha, self.beta, self.second_order = alpha, beta, second_order

    def setup(self, learner: "Learner") -> None:
        super().setup(learner)
        if learner.scaler.is_enabled():
            raise ConfigError("algorithm=mltp takes a step by an unscaled gradient, which 16-mixed cannot; use bf16-mixed or 32")
        if learner.term_modules or next(learner.loss.parameters(), None) is not None:
            raise ConfigError("algorithm=mltp steps the network alone, and the loss or a term has weights of its own; drop them")

    def terms(self, learner: "Learner", batch: "Batch", teacher: Output | None) -> tuple[dict[str, Tensor], Output]:
        half = len(batch.x) // 2
        halves = [slice(0, half), slice(half, None)] if half else [slice(None)] * 2
        first, second = (batch._replace(x=batch.x[part], y=batch.y[part], index=_part(batch.index, part)) for part in halves)
        guides = [None if teacher is None else _part_of(teacher, part) for part in halves]
        out = learner.output(first.x, first.y)
        terms = learner.terms(out, first, guides[0])
        weights = dict(learner.network.named_parameters())
        trained = {name: weight for name, weight in weights.items() if weight.requires_grad}
        gradients = torch.autograd.grad(
            sum(terms.values()), list(trained.values()), create_graph=self.second_order, retain_graph=True, allow_unused=True
        )
        alpha = learner.optimizer.param_groups[0]["lr"] if self.alpha is None else self.alpha
        stepped = {
            name: weight if gradient is None else weight - alpha * gradient for (name, weight), gradient in zip(trained.items(), gradients)
        }
        after = functional_call(learner.network, stepped, (second.x, second.y, learner.progress))
        following = learner.terms(after, second, guides[1])
        both = {**terms, **{f"next_{name}": self.beta * value for name, value in following.items()}}
        parts = [out.logits, after.logits] if half else [out.logits]
        return both, Output(torch.cat(parts), None, None)


def _part(values: Tensor | None, part: slice) -> Tensor | None:
    return None if values is None else values[part]


def _part_of(teacher: Output, part: slice) -> Output:
    """A teacher's Output of a part of the batch."""
    values = {name: value[part] for name, value in teacher.values.items()}
    return Output(teacher.logits[part], _part(teacher.features, part), None, values=values)
