"""Progressive stages: the training set grows.   Legend: N training images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attnlab.data.protocols import stratified_order

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class ProgressiveStages:
    """Our reading of Prasad et al., "Rethinking of deep models parameters with respect to data distribution" (ICPR 2020): training begins
    on a part of the images, which grows in steps, while the learning rate does not decay (`schedule=constant`).

    Stage s of S equally long ones draws from the first fraction_s N images of a stratified order, so stages are nested and hold the classes
    in proportion. An epoch has as many steps as ever: a smaller set is gone through several times, and the run sees as many images as any.

    Established: growth in steps, no decay, rate and batch size set from the present size of the data. Ours: the fractions, one batch size
    throughout (and so one rate), equal lengths.

    fractions: in (0, 1], not falling. seed: of the order. ValueError: no fractions, one out of range, falling ones.
    """

    def __init__(self, *, fractions: Sequence[float] = (0.25, 0.5, 0.75, 1.0), seed: int = 0) -> None:
        if not fractions or list(fractions) != sorted(fractions) or not all(0 < one <= 1 for one in fractions):
            raise ValueError(f"fractions must be one or more numbers in (0, 1] that do not fall, got {list(fractions)}")
        self.fractions, self.seed = list(fractions), seed

    def on_epoch_start(self, learner: "Learner", epoch: int) -> None:
        loader = learner.trainer.train_dataloader.loader
        stage = epoch * len(self.fractions) // learner.settings.max_epochs
        labels_N = loader.labels_N.cpu()
        num = max(round(self.fractions[stage] * len(labels_N)), 1)
        loader.drawn_from = None if num == len(labels_N) else stratified_order(labels_N - labels_N.min(), self.seed)[:num]
