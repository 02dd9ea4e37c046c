"""Consistency of a score: does the accuracy grow when the most suspicious inputs are turned away?   Legend: N samples, F fractions."""

from collections.abc import Sequence

import torch
from torch import Tensor

TENTHS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def consistency_curve(scores: Tensor, correct: Tensor, *, fractions: Sequence[float] = TENTHS) -> Tensor:
    """Accuracy of what is kept after the share `fractions` with the highest scores was rejected, (F,) float64 (2404.08476).

    The paper mixes ID and OOD test samples and counts every OOD sample as wrong; a score that tells them apart gives a rising curve.

    Args:
        scores: (N,), larger = more OOD.
        correct: (N,) bool, whether the sample was classified correctly; False for every OOD sample.
        fractions: in [0, 1); round(fraction * N) samples are rejected, at least one is kept.

    Where a tie is cut, accuracy is its expectation over the order within the tie: the order of the samples never matters (our reading).
    Raises ValueError: shapes that disagree, no sample, NaN scores, a fraction out of range.
    """
    if scores.ndim != 1 or scores.shape != correct.shape or len(scores) == 0:
        raise ValueError(f"scores and correct must be (N,) with N > 0, got {(*scores.shape,)} and {(*correct.shape,)}")
    if scores.isnan().any():
        raise ValueError(f"{int(scores.isnan().sum())} of {len(scores)} scores are NaN")
    if not all(0 <= fraction < 1 for fraction in fractions):
        raise ValueError(f"fractions must be in [0, 1), got {tuple(fractions)}")
    _, group_N, size = scores.unique(return_inverse=True, return_counts=True)
    hits = torch.zeros_like(size, dtype=torch.float64).index_add_(0, group_N, correct.double())
    accuracy_N = (hits / size).repeat_interleave(size)  # of each sample's tie, by rising score
    kept_F = torch.tensor([max(1, len(scores) - round(fraction * len(scores))) for fraction in fractions], device=scores.device)
    return accuracy_N.cumsum(0)[kept_F - 1] / kept_F
