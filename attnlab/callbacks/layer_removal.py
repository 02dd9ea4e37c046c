"""Layer removal: residual blocks whose output tells little of the network's go.   Legend: N images, C channels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnlab.backbones.resnet import BasicBlock, Bottleneck
from attnlab.config.suggest import nearest
from attnlab.placement.places import matches
from attnlab.pruning.blocks import last_norm
from attnlab.pruning.distance_correlation import distance_correlation

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class LayerRemoval:
    """Our reading of Soltani et al., "On the information of feature maps and pruning of deep neural networks" (ICPR 2020): layers that
    carry little information on the network's output are removed, and the rest trains on.

        score_l = distance correlation of the mean over the map of block l's output with the logits, on `num` training images

    Established: whole layers go by a measure of dependence with the output; the paper's measure is mutual information, its estimator not
    known to us (the group's later work, arXiv 2201.11209, uses distance covariance). A block goes by a last batch norm of weight and bias
    0, which makes it the identity; `attnlab.pruning.export` leaves it out.

    Args:
        blocks: how many go, >= 1. prune: fraction of training after which, in [0, 1), at the end of an epoch. num: images, >= 2.
        at: globs over the blocks of a ResNet that have no projection in their shortcut.

    Logged: `blocks/kept`. Raises ValueError: out of range; a glob that names no such block; as many blocks to go as there are.
    """

    every = 1
    single = True

    def __init__(self, *, blocks: int = 1, prune: float = 0.5, num: int = 1000, at: Sequence[str] = ("**",)) -> None:
        if blocks < 1 or not 0 <= prune < 1 or num < 2:
            raise ValueError(f"blocks must be at least 1, prune in [0, 1) and num at least 2, got {blocks}, {prune} and {num}")
        self.blocks, self.prune, self.num, self.at = blocks, prune, num, [at] if isinstance(at, str) else list(at)
        self.removed: list[str] = []

    def on_fit_start(self, learner: "Learner") -> None:
        modules = learner.network.backbone.named_modules()
        found = {name: one for name, one in modules if isinstance(one, BasicBlock | Bottleneck) and one.downsample is None}
        for pattern in self.at:
            if not matches(pattern, list(found)):
                near = nearest(pattern, found) if found else "there is none in this network"
                raise ValueError(f"callback layer_removal.at: no block without a projection matches {pattern!r}; {near}")
        self.candidates = {name: found[name] for pattern in self.at for name in matches(pattern, list(found))}
        if self.blocks >= len(self.candidates):
            raise ValueError(f"callback layer_removal.blocks={self.blocks}: there are {len(self.candidates)}, of which one must stay")
        self.removed = []

    @torch.no_grad()
    def on_step(self, learner: "Learner", step: int) -> None:
        for name in self.removed:
            norm = last_norm(self.candidates[name])
            norm.weight.zero_()
            norm.bias.zero_()

    @torch.no_grad()
    def on_epoch_end(self, learner: "Learner", row: dict[str, float]) -> None:
        if not self.removed and learner.current_epoch + 1 >= self.prune * learner.settings.max_epochs:
            scores = self.scores(learner)
            self.removed = sorted(scores, key=scores.__getitem__)[: self.blocks]
            self.on_step(learner, 0)
        row["blocks/kept"] = 1 - len(self.removed) / len(self.candidates)

    def scores(self, learner: "Learner") -> dict[str, float]:
        """The blocks' scores, of the first process's images."""
        values: dict[str, list[Tensor]] = {name: [] for name in self.candidates}
        handles = [
            block.register_forward_hook(lambda module, args, output, name=name: values[name].append(output.float().mean((2, 3))))
            for name, block in self.candidates.items()
        ]
        logits: list[Tensor] = []
        learner.network.eval()
        try:
            with learner.settings.autocast():
                for x, *_ in learner.train_batches():
                    logits.append(learner.network(x).logits.float())
                    if sum(map(len, logits)) >= self.num:
                        break
        finally:
            learner.network.train()
            for handle in handles:
                handle.remove()
        wanted = torch.cat(logits)[: self.num]
        found = torch.stack([distance_correlation(torch.cat(parts)[: self.num], wanted) for parts in values.values()])
        return dict(zip(values, (float(score) for score in learner.trainer.strategy.broadcast(found))))

    def state_dict(self) -> dict[str, Any]:
        return {"removed": list(self.removed)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.removed = list(state["removed"])
