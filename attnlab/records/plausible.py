"""Plausible: what of a finished run's numbers nobody should take for a result, in words for its record's `warnings`."""

import math
from collections.abc import Mapping, Sequence

TIMES = 3.0  # how much worse than at the start, or than a guess, is absurd
NORMAL_99 = 2.576  # standard errors of a two-sided 99% interval


def warnings_of(metrics: Mapping[str, float | None], history: Sequence[Mapping[str, float]], class_counts: Sequence[int]) -> list[str]:
    """Empty for a run that learned something. `class_counts`: test images of each class.

    - At chance: the test accuracy is not above the 99% interval of what naming the largest class gives, share p of N images:
      acc <= p + 2.576 sqrt(p (1 - p) / N).
    - Diverged: the last epoch's training loss is above 3 times the first's (where that is above 0), or the test's negative log-likelihood
      is above 3 log K, that of three uniform guesses among K classes.
    - Not finite: any metric that is inf or nan.
    """
    found, total, classes = [], sum(class_counts), sum(count > 0 for count in class_counts)
    accuracy, nll = metrics.get("test/acc"), metrics.get("test/nll")
    if accuracy is not None and classes > 1:
        share = max(class_counts) / total
        reach = share + NORMAL_99 * math.sqrt(share * (1 - share) / total)
        if accuracy <= reach:
            found.append(f"at chance: test/acc {accuracy:.4f} is not above {reach:.4f}, the 99% interval of naming the largest class")
    losses = [row["train/loss"] for row in history if "train/loss" in row]
    if losses and losses[-1] > TIMES * losses[0] > 0:
        found.append(f"diverged: train/loss went from {losses[0]:.4g} to {losses[-1]:.4g}; lower optimizer.lr")
    if nll is not None and classes > 1 and nll > TIMES * math.log(classes):
        found.append(f"diverged: test/nll {nll:.4g} is above {TIMES:g} log {classes} = {TIMES * math.log(classes):.3g}")
    bad = [name for name, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)]
    if bad:
        found.append(f"not finite: {', '.join(bad[:3])}{f' and {len(bad) - 3} more' if len(bad) > 3 else ''}")
    return found
