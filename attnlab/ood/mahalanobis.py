"""Mahalanobis distance to the nearest class mean.   Legend: N samples, D features, C classes seen, R rank of the covariance."""

from typing import Self

import torch
from torch import Tensor

from attnlab.ood.bank import Bank, as_bank, exact, pooled


class Mahalanobis:
    """Mahalanobis distance to the nearest class mean under one covariance for all classes (1807.03888).

    score = min_c (f - mu_c)^T Sigma^+ (f - mu_c) / 2,  Sigma = 1/N sum_i (f_i - mu_{y_i}) (f_i - mu_{y_i})^T

    Not the library's: Sigma of dead or collapsed features is singular, and an inverse in fp32 gives such directions weights of noise. Here
    features are whitened by Sigma in fp64 and all classes are one distance matrix. Directions in which the training set does not vary
    (below D * 2e-16 of the largest variance) are left out, which makes Sigma^+ the pseudo-inverse as in the official code. Classes without
    samples are no classes, and samples without a label (-1) are left out. ValueError: no labelled sample; features without variance.

    Differs from the paper in: penultimate features only; no input perturbation, no regression over layers (as OpenOOD's `mds`).
    """

    def __init__(self) -> None:
        self.centroid_CR: Tensor | None = None

    def fit(self, bank: Bank | Tensor, labels: Tensor | None = None) -> Self:
        """The mean of every class, and one covariance. From a bank, or features (N, D) and labels (N,); gives itself back."""
        bank = as_bank(bank, labels)
        with exact(bank):
            known_N = bank.labels >= 0
            if not known_N.any():
                raise ValueError("no labelled sample: there is no class to measure a distance to")
            features_ND = pooled(bank, "Mahalanobis").double()[known_N]
            self.center_D = features_ND.mean(0)
            classes, label_N = bank.labels[known_N].unique(return_inverse=True)
            sum_CD = features_ND.new_zeros(len(classes), features_ND.shape[1]).index_add_(0, label_N, features_ND)
            centroid_CD = sum_CD / label_N.bincount()[:, None]
            within_ND = features_ND - centroid_CD[label_N]
            variance_D, axes_DD = torch.linalg.eigh(within_ND.T @ within_ND / len(features_ND))
            kept = variance_D > variance_D[-1] * len(variance_D) * torch.finfo(torch.float64).eps
            if not kept.any():
                raise ValueError("the features of each class are all equal: there is no covariance to measure a distance by")
            self.whiten_DR = axes_DD[:, kept] / variance_D[kept].sqrt()
            self.centroid_CR = (centroid_CD - self.center_D) @ self.whiten_DR
        return self

    def score(self, bank: Bank | Tensor) -> Tensor:
        """(N,) float64, larger = more OOD, of a bank or of features (N, D); in their order."""
        bank = as_bank(bank)
        if self.centroid_CR is None:
            raise ValueError("Mahalanobis must be fitted before it scores")
        white_NR = (pooled(bank, "Mahalanobis").double() - self.center_D) @ self.whiten_DR
        # differences, not norms less products: near a centroid the products cancel
        return torch.cdist(white_NR, self.centroid_CR, compute_mode="donot_use_mm_for_euclid_dist").amin(1).square() / 2
