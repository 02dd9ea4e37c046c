"""Lens depth of a point in a class, under the Fermat distance (2404.08476).

Legend: N sample points of a class, P queries, B a block of queries, D features.
"""

import math
from typing import Literal, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlab.ood.bank import Bank, as_bank, pooled
from attnlab.ood.fermat import fast, fermat_matrix, fermat_to, loop

__all__ = ["LensDepth", "fermat_matrix", "fermat_to", "lens_depth"]

ROWS = 16  # rows of the distance matrix at a time in plain torch; at most 255, as their counts are summed in bytes
BLOCK_BYTES = {"cpu": 2**22, "cuda": 2**29}  # of one block's largest intermediate in plain torch: a CPU's cache, a GPU's throughput


def lens_depth(inner_NN: Tensor, query_PN: Tensor) -> Tensor:
    """Share of the sample's pairs whose lens holds the query, (P,) float64 in [0, 1]; 1 is the centre of the sample, 0 far outside.

    LD(x) = 2 / (N (N-1)) #{i < j : max(d(x, q_i), d(x, q_j)) <= D(q_i, q_j)}

    Args:
        inner_NN: distances within the sample, symmetric, e.g. `fermat_matrix`. Any distance will do.
        query_PN: distances of the queries to the sample, e.g. `fermat_to`; rows of `inner_NN` itself give the sample's own depths.

    Exact: distances are compared as given, in fp64, ties count. Memory is bounded, never P x N x N. Depth does not change when all
    distances are scaled, or put through one increasing function. Raises ValueError: fewer than 2 points, shapes that do not fit.
    """
    N = len(inner_NN)
    if inner_NN.shape != (N, N) or query_PN.ndim != 2 or query_PN.shape[1] != N:
        raise ValueError(f"inner must be (N, N) and query (P, N), got {(*inner_NN.shape,)} and {(*query_PN.shape,)}")
    if N < 2:
        raise ValueError(f"lens depth counts pairs: it needs at least 2 points, got {N}")
    nearest_P, longest = query_PN.amin(1), inner_NN.max()
    if not longest.isfinite() or nearest_P.isnan().any():
        raise ValueError("distances must not be NaN, and within the sample they must be finite")
    depth_P = torch.zeros(len(query_PN), dtype=torch.float64, device=query_PN.device)
    near_P = nearest_P <= longest  # no lens reaches the others
    if near_P.any():
        near_PN = query_PN if near_P.all() else query_PN[near_P]
        count = _count_compiled if fast(query_PN.device) else _count
        depth_P[near_P] = count(inner_NN.double().contiguous(), near_PN.double().contiguous()).double() / (N * (N - 1) // 2)
    return depth_P


def _count_compiled(inner_NN: Tensor, query_PN: Tensor) -> Tensor:
    """Pairs whose lens holds the query, int64. Keys are the distances as fp32, but for ties that rounding makes (see fermat.c)."""
    P, N = query_PN.shape
    blocks = -(-P // 32)
    unit = inner_NN.max().reciprocal().clamp(max=1e300)
    inner_key_NN, query_key = torch.empty(N, N, dtype=torch.int32), torch.zeros(blocks, N, 32, dtype=torch.int32)
    loop("keys", N, N, 1, unit, inner_NN, inner_key_NN)
    loop("keys", P, N, 32, unit, query_PN, query_key)
    count_P = torch.empty(P, dtype=torch.int64)
    loop("lenses", blocks, N, P, inner_NN, inner_key_NN, query_PN, query_key, count_P)
    return count_P


def _count(inner_NN: Tensor, query_PN: Tensor) -> Tensor:
    """The same in plain torch: a few rows of pairs by a block of queries at a time."""
    if query_PN.is_cuda:
        inner_NN, query_PN = _ranks(inner_NN, query_PN)
    N = len(inner_NN)
    lower_NN = inner_NN.where(torch.ones_like(inner_NN, dtype=torch.bool).tril(-1), -1)  # each pair once
    block = max(64, BLOCK_BYTES.get(query_PN.device.type, 2**26) // (ROWS * N * inner_NN.element_size()) // 8 * 8)
    counts = []
    for query_BN in query_PN.split(block):
        query_NB = F.pad(query_BN.T, (0, -len(query_BN) % 8)).contiguous()
        count_B = query_NB.new_zeros(query_NB.shape[1], dtype=torch.int64)
        for start in range(0, N, ROWS):
            stop = min(start + ROWS, N)
            far = torch.maximum(query_NB[start:stop, None], query_NB[:stop])
            inside = far <= lower_NN[start:stop, :stop, None]
            count_B += inside.view(torch.int64).sum(0).view(torch.uint8).sum(0)  # eight yes-or-no bytes a word
        counts.append(count_B[: len(query_BN)])
    return torch.cat(counts)


def _ranks(inner_NN: Tensor, query_PN: Tensor) -> tuple[Tensor, Tensor]:
    """How many of the sample's distances are smaller, int32: compares to one another as the distances do, in half the bytes."""
    levels = inner_NN.unique()
    return torch.searchsorted(levels, inner_NN, out_int32=True), torch.searchsorted(levels, query_PN, out_int32=True)


class LensDepth:
    """score(x) = -max_c LD(f(x) | Q_c), Q_c a sample of class c's training features, under the Fermat distance (2404.08476).

    No training, no covariance, no density: larger = more OOD, from -1 to 0, and 0 for whatever lies outside every class.

    Args:
        alpha: power of the Fermat distance, at least 1; the paper's 7 on images (3 to 15 on toys); 1 is the Euclidean distance.
        num_centers: size of Q_c; a class with no more distinct points than that gives all of them. The paper: 500 to 1500.
        normalize: divide features by their norm first: the paper does on Fashion-MNIST, not on CIFAR-10.
        reduction: Q_c are the k-means centres of the class ("kmeans", the paper's), the points nearest to them ("nearest"), a random
            draw ("random") or all points ("none"; memory and time of fit grow as N^2 and N^3).
        num_inits: starts of k-means, of which the best is kept.
        seed: of k-means and of the random draw.
        block: queries at a time; memory is some 24 * block * num_centers bytes, and an (N, N) float64 matrix a class.

    LensDepth().fit(features_ND, labels_N).score(other_PD): both take a bank, too. fit wants labelled features (label -1 is left out), score
    gives (N,) float64. The features' scale does not matter: they are divided by
    a power of two near their spread, so that powers of distances keep within fp64. Ties are many: every point outside has depth 0.
    Raises ValueError: a class with fewer than 2 points, no labelled sample, NaN or infinite features, no features, score before fit, an
    argument out of range.

    Differs from the official code in: one start of k-means++ by default (there 10, which takes ten times as long and fits less than 1%
    closer); fp64 throughout; the features are the bank's (there those of randomly cropped and flipped training images). Our reading:
    "nearest" is the class's own point nearest to each k-means centre, each point once.
    """

    def __init__(
        self,
        *,
        alpha: float = 7.0,
        num_centers: int = 500,
        normalize: bool = False,
        reduction: Literal["kmeans", "random", "nearest", "none"] = "kmeans",
        num_inits: int = 1,
        seed: int = 0,
        block: int = 2048,
    ) -> None:
        if not 1 <= alpha < math.inf:
            raise ValueError(f"alpha must be at least 1 (1 is the Euclidean distance), got {alpha}")
        if num_centers < 2:
            raise ValueError(f"num_centers must be at least 2, as depth counts pairs, got {num_centers}")
        if reduction not in ("kmeans", "random", "nearest", "none"):
            raise ValueError(f"reduction must be kmeans, random, nearest or none, got {reduction!r}")
        if min(num_inits, block) < 1:
            raise ValueError(f"num_inits and block must be at least 1, got {num_inits} and {block}")
        self.alpha, self.num_centers, self.normalize, self.reduction = alpha, num_centers, normalize, reduction
        self.num_inits, self.seed, self.block = num_inits, seed, block
        self.samples: list[tuple[Tensor, Tensor]] = []  # a class: points (N, D) and their fermat_matrix (N, N)

    def fit(self, bank: Bank | Tensor, labels: Tensor | None = None) -> Self:
        """Every class's points and the distances within them. From a bank, or features (N, D) and labels (N,); gives itself back."""
        bank = as_bank(bank, labels)
        known_N = bank.labels >= 0
        if not known_N.any():
            raise ValueError("no labelled sample: lens depth needs the classes' features")
        classes, class_N, sizes = bank.labels[known_N].unique(return_inverse=True, return_counts=True)
        if sizes.min() < 2:
            raise ValueError(f"class {int(classes[sizes.argmin()])} has {int(sizes.min())} point: lens depth needs at least 2 a class")
        features_ND = self._read(bank)[known_N]
        spread = float((features_ND - features_ND.mean(0)).abs().max())
        self.scale = math.ldexp(1.0, math.frexp(spread)[1] - 1)  # a power of two: dividing by it changes no digit
        features_ND = features_ND / self.scale
        points = [self._reduce(features_ND[class_N == c]) for c in range(len(classes))]
        self.samples = [(points_ND, fermat_matrix(points_ND, alpha=self.alpha)) for points_ND in points]
        return self

    def score(self, bank: Bank | Tensor) -> Tensor:
        """(N,) float64, larger = more OOD, of a bank or of features (N, D); in their order."""
        bank = as_bank(bank)
        if not self.samples:
            raise ValueError("lens depth must be fitted before it scores")
        return -torch.cat([self._depth(features_BD / self.scale) for features_BD in self._read(bank).split(self.block)])

    def _depth(self, features_BD: Tensor) -> Tensor:
        depth_B = features_BD.new_zeros(len(features_BD))
        for points_ND, inner_NN in self.samples:
            to_BN = fermat_to(inner_NN, points_ND, features_BD, alpha=self.alpha)
            depth_B = torch.maximum(depth_B, lens_depth(inner_NN, to_BN))
        return depth_B

    def _read(self, bank: Bank) -> Tensor:
        features_ND = pooled(bank, "lens depth").double()
        if not features_ND.isfinite().all():
            raise ValueError(f"features must be finite, got {int((~features_ND.isfinite()).any(1).sum())} samples with NaN or infinity")
        return F.normalize(features_ND, dim=1) if self.normalize else features_ND

    def _reduce(self, points_ND: Tensor) -> Tensor:
        """Q_c of one class's points."""
        if self.reduction == "none" or len(points_ND) <= self.num_centers:
            return points_ND
        if self.reduction == "random":
            generator = torch.Generator().manual_seed(self.seed)
            return points_ND[torch.randperm(len(points_ND), generator=generator)[: self.num_centers].to(points_ND.device)]
        if len(distinct_ND := points_ND.unique(dim=0)) <= self.num_centers:
            return distinct_ND
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits

        with threadpool_limits(1):  # several threads add up in a random order, and no run would repeat another
            kmeans = KMeans(self.num_centers, n_init=self.num_inits, random_state=self.seed).fit(points_ND.cpu().numpy())
        centers_ND = torch.from_numpy(kmeans.cluster_centers_).to(points_ND)
        if self.reduction == "kmeans":
            return centers_ND
        return points_ND[torch.cdist(centers_ND, points_ND).argmin(1).unique()]
