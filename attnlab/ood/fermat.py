"""Fermat distances: shortest paths through a sample that prefer many short hops to a long one.

Legend: N sample points, P queries, D features.

On the CPU the loops are compiled where there is a C compiler (a second, once a process; nothing is kept). Without one, and on CUDA, plain
torch gives the same numbers to rounding. All is fp64: at alpha 7 distances span more decades than fp32 has digits.
"""

import ctypes
import functools
import logging
import math
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_suffix(".c")
PIVOTS, WIDTH = 64, 32  # K and W of fermat.c


@functools.cache
def compiled() -> ctypes.CDLL | None:
    """The loops of fermat.c as a library, or None where no C compiler works: `CC`, cc, gcc and clang are tried."""
    compilers = filter(None, map(shutil.which, (os.environ.get("CC", ""), "cc", "gcc", "clang")))
    with tempfile.TemporaryDirectory(prefix="attnlab-") as folder:
        library = Path(folder, "fermat.so")
        for compiler in compilers:
            for tuning in (["-march=native", "-mprefer-vector-width=512"], ["-march=native"], []):
                command = [compiler, "-O3", "-fno-math-errno", *tuning, "-shared", "-fPIC", str(SOURCE), "-o", str(library)]
                try:
                    subprocess.run(command, check=True, capture_output=True, timeout=60)
                    return ctypes.CDLL(str(library))
                except (OSError, subprocess.SubprocessError) as error:
                    log.info("the loops of lens depth were not compiled: %s", error)
    log.warning("no working C compiler: lens depth runs in plain torch, with the same numbers, some 20 times slower")
    return None


def loop(name: str, rows: int, *arguments: Tensor | int) -> None:
    """Run the loop `name` of fermat.c over `rows` rows, in as many threads as torch uses. Tensors are contiguous and on the CPU."""
    function = getattr(compiled(), name)
    values = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_ssize_t(a) for a in arguments]
    threads = max(1, min(torch.get_num_threads(), rows))
    edges = [ctypes.c_ssize_t(rows * part // threads) for part in range(threads + 1)]
    if threads == 1:
        function(*edges, *values)
        return
    with ThreadPoolExecutor(threads) as pool:  # a ctypes call lets go of the interpreter
        list(pool.map(lambda begin, end: function(begin, end, *values), edges, edges[1:]))


def fast(device: torch.device) -> bool:
    """Whether `loop` can be used for tensors on `device`."""
    return device.type == "cpu" and compiled() is not None


def fermat_matrix(points_ND: Tensor, *, alpha: float) -> Tensor:
    """Fermat distance within a sample, (N, N) float64: the shortest path on the complete graph whose edges weigh |x - y|^alpha.

    D(x, y) = min over paths x = q_1, .., q_k = y in the sample of sum_j |q_j+1 - q_j|^alpha (2404.08476), by Floyd-Warshall, O(N^3).
    alpha 1 is the Euclidean distance; the larger alpha, the more a path keeps to where the sample is dense.

    Raises ValueError: alpha < 1; points that are not (N, D) or not finite; distances whose powers leave fp64.
    """
    points_ND = _points(points_ND)
    inner_NN = _hops(points_ND, points_ND, alpha)
    zeros, N = int((inner_NN == 0).sum()), len(inner_NN)
    if not inner_NN.isfinite().all() or (zeros > N and zeros > (torch.cdist(points_ND, points_ND, p=math.inf) == 0).sum()):
        raise ValueError(f"distances to the power {alpha:g} leave fp64: divide the points by a scale, lens depth stays the same")
    if alpha == 1:
        return inner_NN  # no path is shorter than the straight line
    if fast(inner_NN.device):
        panel_NK, row_KN = inner_NN.new_empty(N, PIVOTS), inner_NN.new_empty(PIVOTS, N)
        for first in range(0, N, PIVOTS):
            loop("pivots", 1, N, first, inner_NN, panel_NK, row_KN)
            loop("relax", -(-N // (2 * WIDTH)), N, inner_NN, panel_NK)
        inner_NN.triu_().add_(inner_NN.triu(1).T)  # the loops keep to the upper half
    else:
        for pivot in range(N):
            torch.minimum(inner_NN, inner_NN[:, pivot, None] + inner_NN[pivot], out=inner_NN)
    return inner_NN


def fermat_to(inner_NN: Tensor, points_ND: Tensor, queries_PD: Tensor, *, alpha: float) -> Tensor:
    """Fermat distance of points outside the sample to it, (P, N) float64: d(x, q_j) = min_i |x - q_i|^alpha + D(q_i, q_j).

    `inner_NN` is the sample's own `fermat_matrix`. Paths leave x for any sample point; x never becomes a stop of other paths (2404.08476).
    Memory is that of the result, two or three times over. Exact: a first stop i is left out only where i itself is better reached through
    another one. A distance too large for fp64 is inf. Raises ValueError: shapes that do not fit, alpha < 1, values that are not finite.
    """
    points_ND, queries_PD = _points(points_ND), _points(queries_PD)
    N = len(points_ND)
    if inner_NN.shape != (N, N) or queries_PD.shape[1] != points_ND.shape[1]:
        shapes = f"{(*inner_NN.shape,)}, {(*points_ND.shape,)} and {(*queries_PD.shape,)}"
        raise ValueError(f"inner must be (N, N), points (N, D) and queries (P, D), got {shapes}")
    inner_NN = inner_NN.double().contiguous()
    hop_PN = _hops(queries_PD, points_ND, alpha)
    if alpha == 1:
        return hop_PN
    if not fast(hop_PN.device):
        block = max(1, (2**17 if hop_PN.device.type == "cpu" else 2**24) // N)  # values of a block: a CPU's cache, a GPU's throughput
        return torch.cat([_reach(inner_NN, hop_BN) for hop_BN in hop_PN.split(block)])
    reached_PN = torch.empty_like(hop_PN)
    loop("reach", len(hop_PN), N, inner_NN, hop_PN, reached_PN)
    return reached_PN


def _reach(inner_NN: Tensor, hop_PN: Tensor) -> Tensor:
    """min_i hop_i + inner_ij: the nearest useful first stops of all queries at once, then, for what is left, every stop in turn."""
    first_P1, stop_P1 = hop_PN.min(1, keepdim=True)
    reached_PN = first_P1 + inner_NN[stop_P1[:, 0]]
    for _ in range(32):
        first_P1, stop_P1 = hop_PN.masked_fill(hop_PN >= reached_PN, math.inf).min(1, keepdim=True)
        if first_P1.isinf().all():
            return reached_PN
        reached_PN = torch.minimum(reached_PN, first_P1 + inner_NN[stop_P1[:, 0]])  # inf where no stop is useful
    left_P = (hop_PN < reached_PN).any(1)
    hop_LN, reached_LN = hop_PN[left_P], reached_PN[left_P]
    for stop in range(len(inner_NN)):
        torch.minimum(reached_LN, hop_LN[:, stop, None] + inner_NN[stop], out=reached_LN)
    reached_PN[left_P] = reached_LN
    return reached_PN


def _points(points_ND: Tensor) -> Tensor:
    """Finite fp64 points: differences of close points and high powers of them need every digit."""
    if points_ND.ndim != 2:
        raise ValueError(f"points must be (N, D), got {(*points_ND.shape,)}")
    if not points_ND.isfinite().all():
        raise ValueError(f"points must be finite, got {int((~points_ND.isfinite()).sum())} values that are NaN or infinite")
    return points_ND.double().contiguous()


def _hops(queries_PD: Tensor, points_ND: Tensor, alpha: float) -> Tensor:
    """|x - q|^alpha, (P, N). From differences, not from norms and products, which cancel: a query on a point must be at distance 0."""
    if not 1 <= alpha < math.inf:
        raise ValueError(f"alpha must be at least 1 (1 is the Euclidean distance, the paper takes 7), got {alpha}")
    if not fast(queries_PD.device):
        return torch.cdist(queries_PD, points_ND, compute_mode="donot_use_mm_for_euclid_dist").pow_(alpha)
    whole, odd = divmod(int(alpha), 2) if alpha == int(alpha) <= 32 else (1, 0)
    hop_PN = queries_PD.new_empty(len(queries_PD), len(points_ND))
    loop("hops", len(queries_PD), len(points_ND), points_ND.shape[1], whole, odd, queries_PD, points_ND.T.contiguous(), hop_PN)
    return hop_PN if 2 * whole + odd == alpha else hop_PN.pow_(alpha / 2)
