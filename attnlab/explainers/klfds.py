"""Kernel-based LIME with feature dependency sampling (KLFDS; Shi, Du and Fan, ICPR 2020).   Legend: K superpixels, N samples, H, W size."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from attnlab.explainers.superpixels import Superpixels, adjacency
from attnlab.explainers.surrogate import Score, SuperpixelSurrogate

Sampling = Literal["cliques", "connected"]
Kernel = Literal["rbf", "polynomial", "linear"]
LARGEST = 4  # superpixels of a clique: planar graphs have none larger


class Klfds(SuperpixelSurrogate):
    """Superpixels that touch are hidden together, and a kernel ridge regression g takes the place of LIME's linear one.

    g(z) = sum_i a_i k(z, z_i) + b  of  min sum_i pi_i (p_c(z_i) - g(z_i))^2 + penalty |g|_k^2,  pi = exp(-D(1, z)^2 / width^2), D the
    cosine distance; p_c(z): see SuperpixelSurrogate. The weight of superpixel j is the mean over i of g(z_i, z_j = 1) - g(z_i, z_j = 0);
    for the linear kernel that is LIME's weight.

    Our reading: no code of the authors is known; that sets of touching superpixels are sampled as cliques of their graph is from the same
    group's MPS-LIME, the non-linear surrogate from their LEDSNA (both 2020). The kernels, the intercept b and the weight of a
    superpixel are ours.

    Args:
        sampling: which superpixels are hidden. cliques: each set of 1 to 4 that touch one another; all of them, or `num_samples` drawn
            without replacement where there are more. connected: `num_samples` connected sets, of a size drawn uniformly from 1 to K, grown
            from a random superpixel.
        kernel: rbf, exp(-gamma |z - z'|^2); polynomial, (1 + gamma z z')^2; linear, z z'.
        gamma: None: 1 / K.
        penalty: of the regression. kernel_width: of pi.
        num_samples, num_segments, superpixels, seed, mean, std: of SuperpixelSurrogate.

    Raises ValueError: unknown sampling or kernel; penalty or kernel_width <= 0.
    """

    def __init__(
        self,
        *,
        sampling: Sampling = "cliques",
        kernel: Kernel = "rbf",
        gamma: float | None = None,
        penalty: float = 0.1,
        kernel_width: float = 0.25,
        num_samples: int = 1000,
        num_segments: int = 50,
        superpixels: Superpixels = "slic",
        seed: int = 0,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        for name, value, allowed in (("sampling", sampling, get_args(Sampling)), ("kernel", kernel, get_args(Kernel))):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        if not penalty > 0 or not kernel_width > 0:
            raise ValueError(f"penalty and kernel_width must be positive, got {penalty} and {kernel_width}")
        super().__init__(num_samples=num_samples, num_segments=num_segments, superpixels=superpixels, seed=seed, mean=mean, std=std)
        self.sampling, self.kernel, self.gamma, self.penalty, self.kernel_width = sampling, kernel, gamma, penalty, kernel_width

    def weights(self, score: Score, segments_HW: Tensor) -> Tensor:
        touches_KK, generator = adjacency(segments_HW), torch.Generator().manual_seed(self.seed)
        if self.sampling == "cliques":
            hidden = cliques(touches_KK, LARGEST)
            hidden = [hidden[i] for i in torch.randperm(len(hidden), generator=generator)[: self.num_samples].tolist()]
        else:
            hidden = [connected_set(touches_KK, generator) for _ in range(self.num_samples)]
        z_NK = torch.ones(len(hidden), len(touches_KK), dtype=torch.float64)
        for row, chosen in enumerate(hidden):
            z_NK[row, list(chosen)] = 0
        weight_N = torch.exp(-((1 - z_NK.mean(1).sqrt()) ** 2) / self.kernel_width**2)
        gamma = 1 / len(touches_KK) if self.gamma is None else self.gamma
        a_N, _ = kernel_ridge(gram(z_NK, z_NK, self.kernel, gamma), score(z_NK), weight_N, self.penalty, intercept=True)
        found = []
        for j in range(len(touches_KK)):
            shown_NK, hidden_NK = z_NK.clone(), z_NK.clone()
            shown_NK[:, j], hidden_NK[:, j] = 1, 0
            found.append(((gram(shown_NK, z_NK, self.kernel, gamma) - gram(hidden_NK, z_NK, self.kernel, gamma)) @ a_N).mean())
        return torch.stack(found)


def kernel_ridge(gram_NN: Tensor, y_N: Tensor, weight_N: Tensor, penalty: float, *, intercept: bool) -> tuple[Tensor, Tensor]:
    """a (N,) and b, of the weighted kernel ridge regression y ~ K a + b:  a = (K + penalty W^-1)^-1 (y - b);  b is not penalised."""
    system_NN = gram_NN + penalty * torch.diag(1 / weight_N)
    solved_N2 = torch.linalg.solve(system_NN, torch.stack([y_N, torch.ones_like(y_N)], 1))
    b = solved_N2[:, 0].sum() / solved_N2[:, 1].sum() if intercept else y_N.new_zeros(())
    return solved_N2[:, 0] - b * solved_N2[:, 1], b


def gram(z_NK: Tensor, other_MK: Tensor, kernel: Kernel, gamma: float) -> Tensor:
    """Kernel values (N, M)."""
    product_NM = z_NK @ other_MK.T
    if kernel == "linear":
        return product_NM
    if kernel == "polynomial":
        return (1 + gamma * product_NM) ** 2
    return torch.exp(-gamma * (z_NK.square().sum(1)[:, None] + other_MK.square().sum(1) - 2 * product_NM))


def cliques(touches_KK: Tensor, largest: int) -> list[tuple[int, ...]]:
    """All sets of 1 to `largest` nodes that touch one another, each in rising order, small ones first."""
    neighbours = [set(row.nonzero().flatten().tolist()) for row in touches_KK]
    found = level = [(node,) for node in range(len(neighbours))]
    for _ in range(largest - 1):
        level = [(*one, node) for one in level for node in sorted(set.intersection(*(neighbours[i] for i in one))) if node > one[-1]]
        found = found + level
    return found


def connected_set(touches_KK: Tensor, generator: torch.Generator) -> list[int]:
    """A connected set of nodes of a size drawn from 1 to K (of its component's size, if that is smaller)."""
    size = int(torch.randint(1, len(touches_KK) + 1, (), generator=generator))
    order_K = torch.rand(len(touches_KK), generator=generator)  # a random node of the border is the one of the largest draw
    chosen_K, border_K = torch.zeros_like(order_K, dtype=torch.bool), torch.ones_like(order_K, dtype=torch.bool)
    found: list[int] = []
    while len(found) < size and border_K.any():
        node = int(torch.where(border_K, order_K, -1.0).argmax())
        found.append(node)
        chosen_K[node] = True
        border_K = touches_KK[chosen_K].any(0) & ~chosen_K
    return found
