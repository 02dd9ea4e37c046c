"""What a label number means: a class, or a set of classes. Whoever looks at labels as answers asks the data set's `task`.

Labels are one int64 an image, whatever they mean: loaders, splits, records and digests handle them alike.

Legend: N images, B of a batch, K classes, L label sets.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from attnlab.metrics import classification_metrics, multilabel_metrics

THRESHOLD = 0.5  # of a class's probability, from which it is named


class OneLabel:
    """A label is a class, the answer the largest logit: what every data set has that says nothing else."""

    def targets(self, labels_B: Tensor) -> Tensor:
        """What a loss is given for labels: themselves, (B,)."""
        return labels_B

    def right(self, logits_BK: Tensor, targets: Tensor) -> Tensor:
        """Which answers are right, (B,) bool; `targets` as of `targets`."""
        return logits_BK.argmax(1) == targets

    def metrics(self, logits_NK: Tensor, labels_N: Tensor) -> dict[str, float]:
        """`acc`, `nll`, `ece`, `brier`, see `attnlab.metrics`."""
        return classification_metrics(logits_NK, labels_N)

    def decisions(self, logits_NK: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        """The decisions among classes that are taken, as logits and the right choice of each: what a reliability diagram is of."""
        return logits_NK, labels_N

    def names(self, labels_N: Tensor, classes: Sequence[str]) -> list[str]:
        """Labels in words."""
        return [classes[label] for label in labels_N.tolist()]

    def guesses(self, logits_NK: Tensor, classes: Sequence[str]) -> list[str]:
        """Answers in words."""
        return self.names(logits_NK.argmax(1), classes)


class SeveralLabels:
    """A label is the number of a set of classes, a row of `sets_LK` (bool); every class is named whose sigmoid is at least a half.

    An answer is right if all of its classes are, no more and no less. Metrics: `attnlab.metrics.multilabel_metrics`.
    """

    def __init__(self, sets_LK: Tensor) -> None:
        self.sets_LK = sets_LK

    def targets(self, labels_B: Tensor) -> Tensor:
        """(B, K) fp32, 1 for the classes of the set."""
        if self.sets_LK.device != labels_B.device:
            self.sets_LK = self.sets_LK.to(labels_B.device)
        return self.sets_LK[labels_B].float()

    def right(self, logits_BK: Tensor, targets: Tensor) -> Tensor:
        return ((logits_BK >= 0) == (targets >= THRESHOLD)).all(1)

    def metrics(self, logits_NK: Tensor, labels_N: Tensor) -> dict[str, float]:
        return multilabel_metrics(logits_NK, self.targets(labels_N))

    def decisions(self, logits_NK: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        """Of every image and class one decision, yes or no: logits (N K, 2), whose softmax is the sigmoid, and 0 or 1 (N K,)."""
        logits = logits_NK.flatten()
        return torch.stack([torch.zeros_like(logits), logits], 1), self.targets(labels_N).flatten().long()

    def names(self, labels_N: Tensor, classes: Sequence[str]) -> list[str]:
        return _words(self.targets(labels_N) > 0, classes)

    def guesses(self, logits_NK: Tensor, classes: Sequence[str]) -> list[str]:
        return _words(logits_NK >= 0, classes)


def _words(sets_NK: Tensor, classes: Sequence[str]) -> list[str]:
    return ["+".join(name for name, there in zip(classes, row) if there) or "none" for row in sets_NK.tolist()]
