"""Explanations as features, by an isolation forest.   Legend: N samples, D values of a pooled map."""

from typing import Any

import torch
from torch import Tensor

from attnlab.ood.explanation import Explanation


class ExplanationForest(Explanation):
    """score = scikit-learn's isolation forest's anomaly score, in [0, 1], of the standardised attribution (Liu et al., ICDM 2008).

    See `Explanation`, whose vectors it takes. Args: trees, and their `seed`. Raises ValueError: trees < 1; scikit-learn is missing.
    """

    def __init__(self, *, explainer: Any = None, side: int = 16, trees: int = 100, seed: int = 0) -> None:
        super().__init__(explainer=explainer, side=side)
        if trees < 1:
            raise ValueError(f"trees must be at least 1, got {trees}")
        self.trees, self.seed = trees, seed

    def fit_vectors(self, vectors_ND: Tensor, guessed_N: Tensor) -> None:
        try:
            from sklearn.ensemble import IsolationForest
        except ImportError as error:
            raise ValueError("explanation_forest needs scikit-learn: pip install scikit-learn") from error
        self.forest = IsolationForest(n_estimators=self.trees, random_state=self.seed).fit(vectors_ND.cpu().numpy())

    def score_vectors(self, vectors_ND: Tensor, guessed_N: Tensor) -> Tensor:
        return torch.from_numpy(-self.forest.score_samples(vectors_ND.cpu().numpy())).to(vectors_ND)
