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
        held_out: share in [0, 1) of the training images, drawn by the run's seed, that teach nothing and keep their given labels (the
            authors: 0.2). Training ends after a round in which fewer of these labels are met than in each of the two rounds before, so
            of four rounds or more; that round's network is tested. 0: none, and all rounds. With `halves`, which has one iteration: 0.

    Logged: `labels/changed`, the share of training images whose label is not the given one; `labels/held_out_acc` of the last round;
    `train/acc` goes on counting the given labels of all images. Wrong labels come from `data.label_noise`. Raises ValueError: out of
    range; ConfigError: with `halves` or `held_out`, a loss or component that cannot do with unlabelled images.
    Differs from the authors' code in: every round starts from the weights of the first; held-out images are in the batches, without a
    label, so batch norm sees them; training ends with the epoch in which the round does.
    """

    takes_label_sets = False
    leaves_out = ("halves", "held_out")  # options by which images go without a label

    def __init__(
        self,
        train_images: Callable[[torch.device], Iterable[tuple[Tensor, ...]]],
        *,
        rounds: Sequence[float] = (1, 1, 1),
        confidence: float = 0.0,
        halves: bool = False,
        held_out: float = 0.0,
    ) -> None:
        cycle_ends(list(rounds), 1)
        if len(rounds) < 2 + halves or not 0 <= confidence <= 1:
            least = f"rounds must be {2 + halves} or more lengths"
            raise ValueError(f"{least} and confidence in [0, 1], got {list(rounds)} and {confidence}")
        if not 0 <= held_out < 1 or (halves and held_out):
            raise ValueError(f"held_out must be in [0, 1), and 0 with halves, got {held_out}")
        self.held_out = held_out
        self.train_images, self.rounds, self.confidence, self.halves = train_images, list(rounds), confidence, halves
        self.asks = ("index",)

    def setup(self, learner: "Learner") -> None:
        super().setup(learner)
        self.half: bool | None = None
        self.met: list[Tensor] = []  # after each round, the share of held-out images whose given label the network says
        self.last: list[Tensor] = []  # the weights that the round has ended with
        self.ends = cycle_ends(self.rounds, learner.total_steps)[:-1]
        self.trained = [*learner.parameters(), *learner.buffers()]
        self.start = [tensor.detach().clone() for tensor in self.trained]
        if learner.optimizer:  # none where a trained network is only tested
            self.given_N = torch.cat([y for _, y, *_ in self.train_images(learner.device)])
            self.labels_N = self.given_N.clone()
            num, device = len(self.labels_N), self.labels_N.device
            self.second_N = (torch.arange(num, device=device) % 2).bool()  # of the two halves
            if self.held_out:
                order_N = torch.randperm(num, generator=torch.Generator().manual_seed(learner.seed))
                if not 0 < (num_held := round(self.held_out * num)) < num:
                    raise ConfigError(f"algorithm.held_out={self.held_out} of {num} training images leaves nothing to hold out or to learn")
                self.held_N = (order_N < num_held).to(device)

    def terms(self, learner: "Learner", batch: "Batch", teacher: "Output | None") -> "tuple[dict[str, Tensor], Output]":
        y = self.labels_N.index_select(0, batch.index)
        if self.half is not None:
            y = torch.where(self.second_N.index_select(0, batch.index) == self.half, y, -1)
        if self.held_out:
            y = torch.where(self.held_N.index_select(0, batch.index), -1, y)
        terms, out = super().terms(learner, batch._replace(y=y), teacher)
        if self.half is not None or self.held_out:
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
            if self.held_out:
                self.last = [tensor.detach().clone() for tensor in self.trained]
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
        if self.held_out:
            change &= ~self.held_N
            self.met.append(((said == self.given_N) & self.held_N).sum() / self.held_N.sum())
        self.labels_N.copy_(torch.where(change, said, self.labels_N))
        if learner.settings.world_size > 1:  # running statistics, and so predictions, are each process's own
            for tensor in (self.labels_N, *self.met[-1:]):
                torch.distributed.broadcast(tensor, 0)

    @torch.no_grad()
    def on_epoch_end(self, learner: "Learner", row: dict[str, float]) -> None:
        row["labels/changed"] = float((self.labels_N != self.given_N).float().mean())
        if self.met:
            row["labels/held_out_acc"] = float(self.met[-1])
        if self.last and len(self.met) > 2 and bool(self.met[-1] < min(self.met[-3:-1])):
            torch._foreach_copy_(self.trained, self.last)
            learner.stop()
        self.last = []

    def state_dict(self) -> dict[str, Any]:
        return {"labels": self.labels_N, "start": self.start, **({"met": self.met} if self.met else {})}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.labels_N = state["labels"].to(self.start[0].device)
        self.met = [value.to(self.labels_N.device) for value in state.get("met", [])]
        self.start = [value.to(like.device) for value, like in zip(state["start"], self.start)]
