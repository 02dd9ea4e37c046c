"""Supervised learning: the plain step, and the contract of every algorithm."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from attnlab.network import Output
    from attnlab.training.epoch import Batch
    from attnlab.training.learner import Learner


class Supervised:
    """One forward and one backward pass a step, then the optimizer's update. Other algorithms change what they need of these four:

    setup(learner): once, before the first step (and before a trained network is tested).
    terms(learner, batch, teacher): the named terms of the loss and the Output that accuracy is counted on. It may call
        `learner.output(x, y)`, a pass through the network, as often as it likes; `learner.terms(out, batch, teacher)` are the terms of
        one Output. It is compiled as one graph.
    update(learner, closure): `closure()` puts the gradients of the step's batch into the parameters; `learner.apply_gradients()` updates
        by them. An algorithm that calls closure n > 1 times says so by `num_passes = n`: the passes repeat the random draws of the first.
    tested(): the network that is validated and tested.

    `peers`: modules that it trains beside the learner's network: networks, from the constructor's offer `make_peer` (see
    `learner.output(x, y, peer)`), or heads of its own.

    `state_dict` and `load_state_dict`, where an algorithm has them, go into the checkpoint; `on_epoch_end(learner, row)` is as a
    callback's. `asks`: names of offers beside the loss's (`index`, `progress`), see `attnlab.config.asking`. `eager = True`: its terms
    take gradients themselves, which torch.compile cannot trace. `takes_label_sets = False`: it needs class numbers, not sets of classes.
    `takes_unlabelled = True`: it has a use for images without a label. `leaves_out`: its options that take labels away, whatever the data.
    """

    num_passes = 1
    eager = False
    takes_label_sets = True

    def setup(self, learner: "Learner") -> None:
        self.network = learner.network

    def terms(self, learner: "Learner", batch: "Batch", teacher: "Output | None") -> "tuple[dict[str, Tensor], Output]":
        out = learner.output(batch.x, batch.y)
        return learner.terms(out, batch, teacher), out

    def update(self, learner: "Learner", closure: Callable[[], None]) -> None:
        closure()
        learner.apply_gradients()

    def tested(self) -> nn.Module:
        return self.network
