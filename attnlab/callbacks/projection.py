"""Projection: keep weights on a ball of a structured norm while training.   Shapes: weight (O, I, ...), G groups."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from attnlab.config.suggest import nearest
from attnlab.placement.places import matches
from attnlab.pruning import projections as to
from attnlab.pruning.projections import Per, grouped

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class Ball(NamedTuple):
    project: Callable[[Tensor, Tensor, Per], Tensor]
    norm: Callable[[Tensor, Per], Tensor]


BALLS = {
    "l1": Ball(lambda w, r, per: to.l1(w, r), lambda w, per: w.abs().sum()),
    "l21": Ball(lambda w, r, per: to.l21(w, r, per=per), lambda w, per: grouped(w, per).norm(dim=1).sum()),
    "bilevel_l11": Ball(lambda w, r, per: to.bilevel_l11(w, r, per=per), lambda w, per: w.abs().sum()),
    "bilevel_l1inf": Ball(lambda w, r, per: to.bilevel_l1inf(w, r, per=per), lambda w, per: grouped(w, per).abs().amax(1).sum()),
    "nuclear": Ball(lambda w, r, per: to.nuclear(w, r), lambda w, per: torch.linalg.matrix_norm(w.flatten(1), "nuc")),
}


class Projection:
    """Projected training: after the optimizer's step every weight goes back on its ball (Barlaud and Guyard, "Learning sparse DNNs using
    efficient structured projections on convex constraints for green AI", ICPR 2020; the balls: `attnlab.pruning.projections`).

        w <- w - lr g;   w <- P(w, r)

    From `freeze` on zeros stay zeros, and the rest trains on without a projection (the second descent of the authors' double descent; its
    rewind to the first weights is not done). Logged: `projection/zeros`, the share of zero weights, and `projection/zero_groups`, of groups
    that are zero as a whole, in [0, 1].

    Args:
        ball: l1, l21, bilevel_l11 (the paper's l1,1 as released), bilevel_l1inf, nuclear.
        radius: >= 0, of every weight's ball. The paper's value is not known to us.
        relative: `radius` counts in the norm that the weight has at the start, so that one value serves layers of all sizes (our reading).
        per: what a group is, an output filter or an input channel (released: input channels).
        at: globs over the backbone's convolutions and linear layers.
        interval: steps from one projection to the next.
        freeze: fraction of training, in [0, 1]; null: never.

    Raises ValueError: a value out of range; a glob that names no such layer. Biases and batch norm are left alone. A ball `nuclear` makes a
    GPU wait in every projection: give it a large interval.
    """

    single = True

    def __init__(
        self,
        *,
        ball: Literal["l1", "l21", "bilevel_l11", "bilevel_l1inf", "nuclear"] = "bilevel_l11",
        radius: float = 0.5,
        relative: bool = True,
        per: Per = "filter",
        at: Sequence[str] = ("**",),
        interval: int = 1,
        freeze: float | None = None,
    ) -> None:
        if not radius >= 0 or interval < 1:
            raise ValueError(f"radius must be 0 or more and interval 1 or more, got {radius} and {interval}")
        if freeze is not None and not 0 <= freeze <= 1:
            raise ValueError(f"freeze must be a fraction of training in [0, 1], got {freeze}")
        self.ball, self.radius, self.relative, self.per = BALLS[ball], radius, relative, per
        self.at, self.interval, self.freeze = [at] if isinstance(at, str) else list(at), interval, freeze
        self.every = 1

    @torch.no_grad()
    def on_fit_start(self, learner: "Learner") -> None:
        layers = {
            name: one for name, one in learner.network.backbone.named_modules() if isinstance(one, nn.Linear | nn.modules.conv._ConvNd)
        }
        for pattern in self.at:
            if not matches(pattern, list(layers)):
                raise ValueError(f"callback projection.at: no convolution or linear layer matches {pattern!r}; {nearest(pattern, layers)}")
        chosen = {name: None for pattern in self.at for name in matches(pattern, list(layers))}
        self.weights = {name: layers[name].weight for name in chosen}
        size = {name: self.ball.norm(weight, self.per) if self.relative else weight.new_ones(()) for name, weight in self.weights.items()}
        self.radii = {name: self.radius * norm for name, norm in size.items()}
        self.kept: dict[str, Tensor] = {}

    @torch.no_grad()
    def on_step(self, learner: "Learner", step: int) -> None:
        if self.freeze is not None and step > self.freeze * learner.total_steps:
            if not self.kept:
                self.project()
                self.kept = {name: weight != 0 for name, weight in self.weights.items()}
            torch._foreach_mul_(list(self.weights.values()), list(self.kept.values()))
        elif step % self.interval == 0:
            self.project()

    def project(self) -> None:
        for name, weight in self.weights.items():
            weight.copy_(self.ball.project(weight, self.radii[name], self.per))

    @torch.no_grad()
    def on_epoch_end(self, learner: "Learner", row: dict[str, float]) -> None:
        zero = [weight == 0 for weight in self.weights.values()]
        groups = torch.cat([grouped(one, self.per).all(1) for one in zero])
        row["projection/zeros"] = float(sum(one.sum() for one in zero) / sum(one.numel() for one in zero))
        row["projection/zero_groups"] = float(groups.double().mean())

    def state_dict(self) -> dict[str, Any]:
        return {"radii": self.radii, "kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The radii too: those of a network that is under way are not those of its start."""
        for name, weight in self.weights.items():
            self.radii[name] = state["radii"][name].to(weight.device)
        self.kept = {name: kept.to(self.weights[name].device) for name, kept in state["kept"].items()}
