"""Explanations as features: is this image explained as training images of its class are?

Legend: B batch, N samples, C channels, H, W image size, D values of a pooled map, K classes, R components.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.explainers.input_x_gradient import InputXGradient
from attnlab.ood.bank import Bank, exact
from attnlab.ood.mahalanobis import Mahalanobis


class Explanation:
    """Mahalanobis distance of an image's attribution to those of training images of its predicted class, after a PCA.

        e = pool(map of the predicted class), side x side values;   v = PCA_R( (e - mean) / sd );   score = |v - mu_c|^2_{Sigma^-1} / 2

    Watson and Al Moubayed (2105.01959): an attack changes why a class is chosen. mean, sd, PCA, the classes' mu_c and their one
    covariance Sigma are of clean training images and of the class that the network predicts, so no label and no attack is seen. Their
    adversary does not know the detector; one that does may evade it.

    Args:
        explainer: any explainer of one pass or a few; None: input x gradient.
        side: of the pooled map, average over cells.
        components: R, at most as many as vary.

    Our reading (no authors' code; they explain health records and X-rays by Shapley values): the attribution, the pooling and the PCA. A
    class that is predicted for no training image has the mean of all. Subclasses detect in other ways: `fit_vectors`, `score_vectors`.

    Raises ValueError: side or components < 1; data that are no images; score before fit.
    """

    def __init__(self, *, explainer: Any = None, side: int = 16, components: int = 32) -> None:
        if side < 1 or components < 1:
            raise ValueError(f"side and components must be at least 1, got {side} and {components}")
        self.explainer, self.side, self.components = explainer or InputXGradient(), side, components
        self.mean_D: Tensor | None = None

    def describe(self, network: nn.Module, x_BCHW: Tensor) -> Tensor:
        """Pooled maps (B, D) of the predicted classes."""
        if x_BCHW.ndim != 4:
            raise ValueError(f"explanations are of images, got values of shape {tuple(x_BCHW.shape[1:])}")
        with torch.no_grad():
            guessed_B = network(x_BCHW).logits.argmax(1)
        map_B1HW = self.explainer.explain(network, x_BCHW, guessed_B).detach()
        side = (min(self.side, map_B1HW.shape[2]), min(self.side, map_B1HW.shape[3]))
        return F.adaptive_avg_pool2d(map_B1HW.float(), side).flatten(1)

    def fit(self, bank: Bank) -> None:
        """To a bank whose features are what `describe` gives of the training images."""
        vectors_ND = bank.features.double()
        self.mean_D, sd_D = vectors_ND.mean(0), vectors_ND.std(0, correction=0)
        self.scale_D = torch.where(sd_D > 0, sd_D, 1)
        with exact(bank):
            self.fit_vectors((vectors_ND - self.mean_D) / self.scale_D, bank.logits.argmax(1))

    def score(self, bank: Bank) -> Tensor:
        """Scores (N,), larger = more OOD, of such a bank."""
        if self.mean_D is None:
            raise ValueError(f"{type(self).__name__} must be fitted before it scores")
        with exact(bank):
            return self.score_vectors((bank.features.double() - self.mean_D) / self.scale_D, bank.logits.argmax(1))

    def fit_vectors(self, vectors_ND: Tensor, guessed_N: Tensor) -> None:
        """vectors standardised, fp64; guessed: the predicted classes."""
        variance_D, axes_DD = torch.linalg.eigh(vectors_ND.T @ vectors_ND / len(vectors_ND))
        self.axes_DR = axes_DD[:, -min(self.components, int((variance_D > 0).sum()) or 1) :]
        v_NR = vectors_ND @ self.axes_DR
        classes, index_N = guessed_N.unique(return_inverse=True)
        sum_CR = v_NR.new_zeros(len(classes), v_NR.shape[1]).index_add_(0, index_N, v_NR)
        self.centre_KR = v_NR.new_zeros(int(classes.max()) + 1, v_NR.shape[1])
        self.centre_KR[classes] = sum_CR / index_N.bincount()[:, None]
        self.within = Mahalanobis()
        self.within.fit(_bank(v_NR - self.centre_KR[guessed_N]))

    def score_vectors(self, vectors_ND: Tensor, guessed_N: Tensor) -> Tensor:
        v_NR = vectors_ND @ self.axes_DR
        known_N1 = (guessed_N < len(self.centre_KR))[:, None]
        centre_NR = torch.where(known_N1, self.centre_KR[guessed_N.clamp(max=len(self.centre_KR) - 1)], 0)
        return self.within.score(_bank(v_NR - centre_NR))


def _bank(features_ND: Tensor) -> Bank:
    """Vectors of one class."""
    none_N1 = features_ND.new_zeros(len(features_ND), 1)
    return Bank(features_ND, none_N1, none_N1[:, 0].long())
