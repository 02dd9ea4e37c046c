"""Deep nearest neighbours, the library's exact search."""

import logging
from typing import Self

from torch import Tensor

from attnlab.ood.adapter import Adapter
from attnlab.ood.bank import Bank, as_bank, pooled

log = logging.getLogger(__name__)


class KNN(Adapter):
    """Deep nearest neighbours (2204.06507): Euclidean distance to the k-th nearest training feature, exact.

    Args:
        k: 50, the paper's for CIFAR-10 (200 for CIFAR-100, 1000 for ImageNet). More than there are features: all, with a message.
        normalize: divide features by their norm first, as in the paper.
    """

    def __init__(self, *, k: int = 50, normalize: bool = True) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        super().__init__("KNN", k=k, normalize=normalize)
        self.k = k

    def fit(self, bank: Bank | Tensor, labels: Tensor | None = None) -> Self:
        """Keep the features of a bank, or (N, D); k is at most N. Gives itself back."""
        bank = as_bank(bank, labels)
        if len(bank) < self.k:
            log.warning("knn: k=%d is more than the %d training features; the farthest is taken", self.k, len(bank))
        self.parameters["k"] = min(self.k, len(bank))
        return super().fit(bank)

    def read(self, bank: Bank) -> Tensor:
        return pooled(bank, "KNN").cpu().to(self.dtype)  # the search is scikit-learn's
