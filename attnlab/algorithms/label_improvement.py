"""Iterative label improvement: a network trained on wrong labels corrects them, and another is trained on what it says.   N images."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from attnlab.algorithms.supervised import Supervised
from attnlab.config.targets import ConfigError
from attnlab.training.schedules import cycle_ends

if TYPE_CHECKING:
    from attnlab.network import Output
    from attnlab.training.epoch import Batch
    from attnlab.training.learner import Learner


class LabelImprovement(Supervised):
    """Iterative label improvement (Haase-Schuetz et al., arXiv 2002.02705) in rounds of one run: each trains the network afresh, then

        y_n <- argmax_k p_nk   where max_k p_nk > confidence, of the unaugmented training image n

    and the next round learns from the new labels. `halves` is their opILI: the first round learns from one half of the images and relabels
    the other, the second learns from that half and its new labels and relabels the first, the rest learn from all.

    Args:
        rounds: relative lengths, > 0, two or more (`halves`: three). The authors: up to 10 rounds of one length. The learning rate starts
            anew with each round where the schedule does: `schedule=cycles` with the same lengths.
        confidence: in [0, 1]; 0 replaces every label (the authors' plain form; their threshold: 0.3). 1 changes none.
        halves: opILI.

    Logged: `labels/changed`, the share of training images whose label is not the given one; `train/acc` goes on counting the given ones.
    Wrong labels come from `data.label_noise`. Raises ValueError: out of range; ConfigError: with `halves`, a loss that takes no
    unlabelled images.
    Differs from the authors' code in: every round starts from the weights of the first; no early end by accuracy on held-out noisy images.
    """

    takes_label_sets = False

    def __init__(
        self,
        train_images: Callable[[torch.device], Iterable[tuple[Tensor, ...]]],
        *,
        rounds: Sequence[float] = (1, 1, 1),
        confidence: float = 0.0,
        halves: bool = False,
    ) -> None:
        cycle_ends(list(rounds), 1)
        if len(rounds) < 2 + halves or not 0 <= confidence <= 1:
            least = f"rounds must be {2 + halves} or more lengths"
            raise ValueError(f"{least} and confidence in [0, 1], got {list(rounds)} and {confidence}")
        self.train_images, self.rounds, self.confidence, self.halves = train_images, list(rounds), confidence, halves
        self.asks = ("index",)

    def setup(self, learner: "Learner") -> None:
        super().setup(learner)
        if self.halves and not getattr(learner.loss, "takes_unlabelled", False):
            raise ConfigError(f"algorithm.halves=true leaves images out, which loss {type(learner.loss).__name__} cannot take; use loss=ce")
        self.half: bool | None = None
        self.ends = cycle_ends(self.rounds, learner.total_steps)[:-1]
        self.trained = [*learner.parameters(), *learner.buffers()]
        self.start = [tensor.detach().clone() for tensor in self.trained]
        if learner.optimizer:  # none where a trained network is only tested
            self.given_N = torch.cat([y for _, y, *_ in self.train_images(learner.device)])
            self.labels_N = self.given_N.clone()
            self.second_N = (torch.arange(len(self.labels_N), device=self.labels_N.device) % 2).bool()  # of the two halves

    def terms(self, learner: "Learner", batch: "Batch", teacher: "Output | None") -> "tuple[dict[str, Tensor], Output]":
        y = self.labels_N.index_select(0, batch.index)
        if self.half is not None:
            y = torch.where(self.second_N.index_select(0, batch.index) == self.half, y, -1)
        terms, out = super().terms(learner, batch._replace(y=y), teacher)
        if self.half is not None:
            terms = {name: torch.where((y >= 0).any(), value, 0) for name, value in terms.items()}
        return terms, out

    def part(self, steps: int) -> bool | None:
        """Which half a step after `steps` others learns from; None: all images."""
        rounds = sum(steps >= end for end in self.ends)
        return bool(rounds) if self.halves and rounds < 2 else None

    @torch.no_grad()
    def update(self, learner: "Learner", closure: Callable[[], None]) -> None:
        self.half = self.part(learner.totals.steps)  # not in terms: a compiled graph holds for as long as it stays
        with torch.enable_grad():
            super().update(learner, closure)
        if learner.totals.steps + 1 in self.ends:
            self.relabel(learner, self.half)
            torch._foreach_copy_(self.trained, self.start)
            learner.optimizer.state.clear()

    def relabel(self, learner: "Learner", part: bool | None) -> None:
        """New labels where the network is sure, of the half that it has not learned from, or of all images."""
        learner.network.eval()
        with learner.settings.autocast():
            p_NK = torch.cat([learner.network(x).logits.float().softmax(1) for x, *_ in self.train_images(learner.device)])
        learner.network.train()
        sure, said = p_NK.max(1)
        change = sure > self.confidence
        if part is not None:
            change &= self.second_N != part
        self.labels_N.copy_(torch.where(change, said, self.labels_N))
        if learner.settings.world_size > 1:  # running statistics, and so predictions, are each process's own
            torch.distributed.broadcast(self.labels_N, 0)

    def on_epoch_end(self, learner: "Learner", row: dict[str, float]) -> None:
        row["labels/changed"] = float((self.labels_N != self.given_N).float().mean())

    def state_dict(self) -> dict[str, Any]:
        return {"labels": self.labels_N, "start": self.start}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.labels_N = state["labels"].to(self.start[0].device)
        self.start = [value.to(like.device) for value, like in zip(state["start"], self.start)]
