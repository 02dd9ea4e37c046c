"""Distance to the nearest convex hull of a class's features.   Legend: N samples, D features, C classes seen, M features of a class."""

from typing import Self

import torch
from torch import Tensor

from attnlab.ood.bank import Bank, as_bank, pooled


def project_on_simplex(v_NM: Tensor) -> Tensor:
    """The nearest w >= 0 with sum 1 of every row, by sorting (Duchi et al., 2008)."""
    sorted_NM = v_NM.sort(1, descending=True).values
    ranks_M = torch.arange(1, v_NM.shape[1] + 1, dtype=v_NM.dtype, device=v_NM.device)
    excess_NM = (sorted_NM.cumsum(1) - 1) / ranks_M
    last_N1 = (sorted_NM > excess_NM).sum(1, keepdim=True) - 1
    return (v_NM - excess_NM.gather(1, last_N1)).clamp_min(0)


def distance_to_hull(z_ND: Tensor, points_MD: Tensor, *, steps: int = 2000, tolerance: float = 1e-10) -> Tensor:
    """min over the simplex of |z - w^T A|, (N,), by accelerated projected gradients with restarts (O'Donoghue and Candes, 2015).

    It stops where the duality gap g(w)^T w - min g(w), a bound of half the error of the squared distance, is below `tolerance` times the
    squared size of points and query, for all rows, or after `steps`.
    """
    centre_D = points_MD.mean(0)
    z_ND, points_MD = z_ND - centre_D, points_MD - centre_D
    scale = points_MD.square().sum(1).amax() + z_ND.square().sum(1)  # (N,) of the squared distances at stake
    gram_MM, cross_NM = points_MD @ points_MD.T, z_ND @ points_MD.T
    rate = 1 / torch.linalg.matrix_norm(gram_MM, 2).clamp_min(torch.finfo(z_ND.dtype).tiny)
    w_NM = project_on_simplex(-torch.cdist(z_ND, points_MD) / scale.sqrt().clamp_min(1e-300)[:, None])
    ahead_NM, pace_N1 = w_NM, torch.ones_like(w_NM[:, :1])
    for step in range(steps):
        next_NM = project_on_simplex(ahead_NM - rate * (ahead_NM @ gram_MM - cross_NM))
        moved_NM = next_NM - w_NM
        back_N1 = ((ahead_NM - next_NM) * moved_NM).sum(1, keepdim=True) > 0  # momentum points uphill: start it anew
        next_pace_N1 = torch.where(back_N1, torch.ones_like(pace_N1), (1 + (1 + 4 * pace_N1**2).sqrt()) / 2)
        momentum_N1 = torch.where(back_N1, torch.zeros_like(pace_N1), (pace_N1 - 1) / next_pace_N1)
        w_NM, ahead_NM, pace_N1 = next_NM, next_NM + momentum_N1 * moved_NM, next_pace_N1
        if step % 20 == 19:
            gradient_NM = w_NM @ gram_MM - cross_NM
            gap_N = (gradient_NM * w_NM).sum(1) - gradient_NM.amin(1)
            if (gap_N <= tolerance * scale).all():
                break
    return (z_ND - w_NM @ points_MD).norm(dim=1)


class ConvexHull:
    """score = min_c d_c(f), d_c the distance to the convex hull of class c's training features.

        d_c(f) = min over w >= 0, sum w = 1 of |f - sum_m w_m a_cm|

    Our reading of nearest neighbour classification in activation space (Ju et al., ICPR 2020), known from its abstract. Established:
    classification by the distance to the convex hull of each class's features, which sampling makes cheap. Ours: M, which features are
    drawn, the solver, and the distance to the nearest hull as an OOD score. One feature a class, samples=1, is a nearest neighbour; the
    variant by the class's mean is `ood=euclid`, and what both say as classifiers `evaluator=nearest_class`.

    Args:
        samples: M, drawn of each class without replacement; null: all. A class of fewer gives all it has.
        steps: of the solver at most; it stops earlier, where the squared distances are right to 1e-10 of the features' squares.
        normalize: divide features by their norm first.
        seed: of the draw.

    fit wants labelled features (label -1 is left out), score gives (N,) float64, larger = more OOD, 0 inside a hull (to about 1e-5 of the
    features' size). In many dimensions a hull of few points holds next to nothing: D above M makes the score a distance to a face.
    Raises ValueError: no labelled sample; no features; score before fit; samples or steps < 1.
    """

    def __init__(self, *, samples: int | None = 100, steps: int = 2000, normalize: bool = False, seed: int = 0) -> None:
        for name, value in {"samples": samples, "steps": steps}.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        self.samples, self.steps, self.normalize, self.seed = samples, steps, normalize, seed
        self.classes: list[int] = []
        self.points: list[Tensor] = []

    def fit(self, bank: Bank | Tensor, labels: Tensor | None = None) -> Self:
        """The features that span each class's hull. From a bank, or features (N, D) and labels (N,); gives itself back."""
        bank = as_bank(bank, labels)
        features_ND, generator = self._read(bank), torch.Generator().manual_seed(self.seed)
        self.classes = [label for label in bank.labels.unique().tolist() if label >= 0]
        if not self.classes:
            raise ValueError("no labelled sample: there is no class to take the hull of")
        self.points = []
        for label in self.classes:
            mine = (bank.labels == label).nonzero()[:, 0]
            order = torch.randperm(len(mine), generator=generator)[: self.samples].to(mine.device)
            self.points.append(features_ND[mine[order]])
        return self

    def score(self, bank: Bank | Tensor) -> Tensor:
        """(N,) float64, larger = more OOD, of a bank or of features (N, D); in their order."""
        return self.distances(bank).amin(1)

    def distances(self, bank: Bank | Tensor) -> Tensor:
        """(N, C) float64: the distance to the hull of each of `classes`; its argmin is the paper's prediction."""
        bank = as_bank(bank)
        if not self.points:
            raise ValueError("the hulls must be fitted before they score")
        chunks = self._read(bank).split(2048)  # some queries at a time: N M weights
        return torch.cat([torch.stack([distance_to_hull(z_ND, a_MD, steps=self.steps) for a_MD in self.points], 1) for z_ND in chunks])

    def _read(self, bank: Bank) -> Tensor:
        features_ND = pooled(bank, "ConvexHull").double()
        return torch.nn.functional.normalize(features_ND, dim=1) if self.normalize else features_ND
