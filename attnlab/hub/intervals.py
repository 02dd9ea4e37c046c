"""Intervals: how far a run's metrics may be off for the images that it happened to be tested on.   Legend: N ID and M OOD images.

Of one trained network, over draws of test images; what seeds do to the network is not in them (see `attnlab.tables.statistics`).
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from torch import Tensor

from attnlab.evaluation.scores import FILE, load_scores

LEVEL = 0.95
NORMAL = 1.959963984540054  # standard errors of a two-sided interval of LEVEL
Interval = tuple[float, float]


def wilson(hits: int, num: int) -> Interval:
    """The score interval of a share (Wilson 1927)."""
    from scipy.stats import binomtest

    found = binomtest(hits, num).proportion_ci(LEVEL, "wilson")
    return float(found.low), float(found.high)


def of_mean(values_N: np.ndarray) -> Interval | None:
    """The normal interval of a mean over images, or None of fewer than two."""
    if len(values_N) < 2:
        return None
    middle, half = float(values_N.mean()), NORMAL * float(values_N.std(ddof=1)) / math.sqrt(len(values_N))
    return middle - half, middle + half


def delong(id_N: np.ndarray, ood_M: np.ndarray) -> tuple[float, Interval | None]:
    """The AUROC of scores and its interval, larger = OOD (DeLong et al., Biometrics 44, 1988); no interval of fewer than two of a kind.

    p_m = mean_n psi(ood_m, id_n),  q_n = mean_m psi(ood_m, id_n),  psi = 1, 1/2, 0 for >, =, <;  var = var(p) / M + var(q) / N

    By midranks (Sun and Xu, 2014), so in time (N + M) log(N + M).
    """
    from scipy.stats import rankdata

    N, M = len(id_N), len(ood_M)
    ranks = rankdata(np.concatenate([ood_M, id_N]))
    p_M = (ranks[:M] - rankdata(ood_M)) / N
    q_N = 1 - (ranks[M:] - rankdata(id_N)) / M
    middle = float(p_M.mean())
    if min(N, M) < 2:
        return middle, None
    half = NORMAL * math.sqrt(p_M.var(ddof=1) / M + q_N.var(ddof=1) / N)
    return middle, (max(0.0, middle - half), min(1.0, middle + half))


def intervals(folder: Path, metrics: Mapping[str, float | None]) -> dict[str, Interval]:
    """Those of test/acc, test/nll and every head's AUROC, from the run's scores.npz; none where it is not there, or not these metrics'."""
    stored, found = load_scores(folder / FILE), {}
    if "test" in stored.logits:
        logits_NK, labels_N = stored.logits["test"]
        right_N = logits_NK.argmax(1) == labels_N
        nll_N = -logits_NK.double().log_softmax(1).gather(1, labels_N[:, None])[:, 0].numpy()
        found["test/acc"] = (float(right_N.double().mean()), wilson(int(right_N.sum()), len(labels_N)))
        found["test/nll"] = (float(nll_N.mean()), of_mean(nll_N))
    for head, sets in stored.scores.items():
        for name in sets.keys() - {"test"} if "test" in sets else ():
            found[f"ood/{head}/{name}/auroc"] = delong(_array(sets["test"]), _array(sets[name]))
    return {
        key: interval
        for key, (value, interval) in found.items()
        if interval and metrics.get(key) is not None and math.isclose(value, metrics[key], abs_tol=1e-4)
    }


def _array(scores: Tensor) -> np.ndarray:
    return scores.double().numpy()
