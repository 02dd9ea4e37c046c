"""Euclidean distance to the nearest class centroid.   Legend: N samples, D features, C classes seen."""

from typing import Self

import torch
from torch import Tensor

from attnlab.ood.bank import Bank, as_bank, pooled


class Euclidean:
    """score = min_c |f - mu_c|_2, mu_c the mean of class c's training features: the baseline of lens depth's tables (2404.08476).

    Args:
        normalize: divide features by their norm first; lens depth's FashionMNIST network does, its CIFAR-10 one does not (default).

    fit wants labelled features (label -1 is left out), score gives (N,) float64. Raises ValueError: no labelled sample; no features; score
    before fit. Our reading: the paper names the baseline but not its details; classes are those that have samples.
    """

    def __init__(self, *, normalize: bool = False) -> None:
        self.normalize = normalize
        self.classes: list[int] = []
        self.centroid_CD: Tensor | None = None

    def fit(self, bank: Bank | Tensor, labels: Tensor | None = None) -> Self:
        """The mean of every class. From a bank, or features (N, D) and labels (N,); gives itself back."""
        bank = as_bank(bank, labels)
        known_N = bank.labels >= 0
        if not known_N.any():
            raise ValueError("no labelled sample: there is no class to take the centroid of")
        classes, class_N = bank.labels[known_N].unique(return_inverse=True)
        self.classes, features_ND = classes.tolist(), self._read(bank)[known_N]
        sum_CD = features_ND.new_zeros(len(classes), features_ND.shape[1]).index_add_(0, class_N, features_ND)
        self.centroid_CD = sum_CD / class_N.bincount()[:, None]
        return self

    def score(self, bank: Bank | Tensor) -> Tensor:
        """(N,) float64, larger = more OOD, of a bank or of features (N, D); in their order."""
        return self.distances(bank).amin(1)

    def distances(self, bank: Bank | Tensor) -> Tensor:
        """(N, C) float64: the distance to the centroid of each of `classes`; its argmin is the nearest class."""
        bank = as_bank(bank)
        if self.centroid_CD is None:
            raise ValueError("the centroids must be fitted before they score")
        # differences, not norms less products: near a centroid the products cancel
        return torch.cdist(self._read(bank), self.centroid_CD, compute_mode="donot_use_mm_for_euclid_dist")

    def _read(self, bank: Bank) -> Tensor:
        features_ND = pooled(bank, "Euclidean").double()
        return torch.nn.functional.normalize(features_ND, dim=1) if self.normalize else features_ND
