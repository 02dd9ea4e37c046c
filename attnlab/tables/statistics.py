"""Statistics of a few seeds: mean, sample sd, t interval, the paired test against a baseline, and whether a published value holds.

Pure functions of Python floats in one unit (a table's: "error, %"). docs/tables.md states the rule of the verdict in words.
"""

import math
from collections.abc import Mapping, Sequence

from attnlab.tables.model import Paired, Paper

LEVEL = 0.95
FEWEST = 3  # seeds: two show next to nothing of their own spread
COARSE = 3.0  # noise of more than so many margins cannot separate a value that holds from one that does not


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean, or None of no values."""
    return math.fsum(values) / len(values) if values else None


def sample_sd(values: Sequence[float]) -> float | None:
    """Sample standard deviation (n - 1), or None of fewer than two values."""
    if len(values) < 2:
        return None
    middle = mean(values)
    return math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (len(values) - 1))


def t_quantile(degrees: float) -> float:
    """How many standard errors a two-sided interval of LEVEL reaches to each side."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + LEVEL / 2))


def t_interval(values: Sequence[float], *, within: tuple[float, float] = (-math.inf, math.inf)) -> tuple[float, float] | None:
    """The LEVEL interval of the mean under Student's t; its ends are kept `within` what can be.

    None of fewer than two values, and of equal ones: a number of parameters has no interval, and equal accuracies tell nothing of theirs.
    """
    if not (spread := sample_sd(values)):
        return None
    middle, half = mean(values), t_quantile(len(values) - 1) * spread / math.sqrt(len(values))
    return max(within[0], middle - half), min(within[1], middle + half)


def paired_test(ours: Mapping[int, float], baseline: Mapping[int, float]) -> Paired | None:
    """Ours minus the baseline over the seeds that both have: Student's paired test, two-sided. None without a shared seed.

    p is None where it is not defined: one shared seed, or the same difference in all.
    """
    from scipy.special import stdtr

    differences = [ours[seed] - baseline[seed] for seed in sorted(ours.keys() & baseline.keys())]
    if not differences:
        return None
    n, middle, spread = len(differences), mean(differences), sample_sd(differences)
    p = float(2 * stdtr(n - 1, -abs(middle) / (spread / math.sqrt(n)))) if spread else None
    return Paired(n, middle, t_interval(differences), p)


def noise(n: int, sd: float, *, paper_sd: float | None = None, paper_runs: int = 1) -> float:
    """How far two means of the same quantity may lie apart by chance alone (half-width of the LEVEL interval of their difference).

    n, sd: our seeds (at least 2) and their sample sd. paper_sd, paper_runs: the paper's, where it gives them; its sd unknown is taken to be
    ours. Welch's degrees of freedom where both are known.
    """
    if paper_sd is None or paper_runs < 2:
        other, degrees = (sd if paper_sd is None else paper_sd) ** 2 / paper_runs, float(n - 1)
    else:
        own, other = sd**2 / n, paper_sd**2 / paper_runs
        total = own**2 / (n - 1) + other**2 / (paper_runs - 1)
        degrees = (own + other) ** 2 / total if total else float(n - 1)
    return t_quantile(degrees) * math.sqrt(sd**2 / n + other)


def verdict(values: Sequence[float], paper: Paper | None, *, margin: float, paper_runs: int = 1, same_data: bool = True) -> str:
    """Whether the published value holds: missing | not published | other data | too few seeds | holds | differs.

    `margin`: a difference of no consequence, in the shown unit. With |d| the distance of the two means:
    holds = |d| is within the margin or within the noise of both means; differs = it is beyond both. Too few seeds = fewer than three, or,
    short of "differs", noise of more than COARSE margins.
    """
    if not margin > 0:
        raise ValueError(f"margin must be above 0, got {margin}")
    if not values:
        return "missing"
    if paper is None:
        return "not published"
    if not same_data:
        return "other data"
    if len(values) < FEWEST:
        return "too few seeds"
    reach = noise(len(values), sample_sd(values), paper_sd=paper.sd, paper_runs=paper_runs)
    distance = abs(mean(values) - paper.value)
    if distance > max(margin, reach) * (1 + 1e-9):  # a value printed in decimals may lie on the very edge
        return "differs"
    return "holds" if reach <= COARSE * margin else "too few seeds"
