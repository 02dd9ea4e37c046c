"""MC dropout: passes that go on dropping are the members of an ensemble.   Legend: B batch, K classes."""

import copy
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from attnlab.config.suggest import nearest
from attnlab.ensemble import mixture
from attnlab.network import Output
from attnlab.placement.places import matches

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class MCDropout:
    """Monte Carlo dropout (Gal and Ghahramani, arXiv 1506.02142): what is tested is the mean probability of `passes` passes, in each of
    which the network's dropout goes on. Training does not see it. Each pass is a member of the Output, so aleatoric and
    mutual_information work.

    Args:
        passes: >= 1.
        at: globs over all modules of the network, placed ones included; those in training mode during the passes. Default: PyTorch's
            dropout layers wherever they are. A component of another kind that drops is named: `placed.dropblock@layer3`.

    Raises ValueError: passes below 1; a glob that matches nothing; no dropout in the network. Draws follow the evaluator's seed.
    """

    one_label = True  # the mean is of softmaxes

    def __init__(self, *, passes: int = 20, at: Sequence[str] | None = None) -> None:
        if passes < 1:
            raise ValueError(f"passes must be at least 1, got {passes}")
        self.passes, self.at = passes, [at] if isinstance(at, str) else at

    def on_fit_start(self, learner: "Learner") -> None:
        self.dropping(learner.network)

    def dropping(self, network: nn.Module) -> list[str]:
        """The names of the modules that go on."""
        known = {name: one for name, one in network.named_modules() if name}
        if self.at is None:
            found = [name for name, one in known.items() if isinstance(one, nn.modules.dropout._DropoutNd) and one.p > 0]
            if not found:
                raise ValueError("callback mc_dropout finds no dropout in the network; add regularizer=dropout, or name components by `at`")
            return found
        for pattern in self.at:
            if not matches(pattern, list(known)):
                raise ValueError(f"callback mc_dropout.at: no module matches {pattern!r}; {nearest(pattern, known)}")
        return [name for pattern in self.at for name in matches(pattern, list(known))]

    def tested(self, network: nn.Module) -> nn.Module:
        return Passes(copy.deepcopy(network), self.dropping(network), self.passes)


class Passes(nn.Module):
    """Several passes of `network` with its modules `dropping` in training mode, as one network."""

    def __init__(self, network: nn.Module, dropping: Sequence[str], passes: int) -> None:
        super().__init__()
        self.network, self.dropping, self.passes = network, list(dropping), passes
        self.placed = network.placed

    def train(self, mode: bool = True) -> "Passes":
        super().train(mode)
        for name in self.dropping:
            self.network.get_submodule(name).train()
        return self

    def forward(self, x: Tensor, target: Tensor | None = None) -> Output:
        outs = tuple(self.network(x) for _ in range(self.passes))
        features = None if outs[0].features is None else sum(out.features for out in outs) / self.passes
        return Output(mixture([out.logits for out in outs]), features, None, members=outs)
