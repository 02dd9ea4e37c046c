"""Pruners: from the curves of a study's ended trials to the value that a new trial's run must reach, epoch by epoch.

They answer before a batch is launched, and a run holds itself to the answer (`attnlab.callbacks.halt`): so a study is the same on any
launcher, and a run asks nobody while it trains. A curve is {epoch: value}, epochs from 1; the best value so far stands for a run, as in
Optuna's percentile pruner.
"""

import statistics
from collections.abc import Sequence
from typing import Literal

Curve = dict[int, float]
Mode = Literal["max", "min"]


class Median:
    """A run is halted whose best value is worse than the median of the complete trials' values after the same epoch (Golovin et al.,
    Google Vizier, KDD 2017, section 3.1); Optuna's MedianPruner, with the trials that had ended when the batch began.

    startup: complete trials before anything is halted. warmup: epochs of a run in which it is not halted.
    """

    def __init__(self, *, startup: int = 5, warmup: int = 0) -> None:
        if startup < 1 or warmup < 0:
            raise ValueError(f"startup must be at least 1 and warmup at least 0, got {startup} and {warmup}")
        self.startup, self.warmup = startup, warmup

    def bars(self, complete: Sequence[Curve], halted: Sequence[Curve], *, mode: Mode) -> Curve:
        """The value to reach by epoch, where there is one."""
        if len(complete) < self.startup:
            return {}
        epochs = sorted({epoch for curve in complete for epoch in curve if epoch > self.warmup})
        return {epoch: statistics.median(curve[epoch] for curve in complete if epoch in curve) for epoch in epochs}


class SuccessiveHalving:
    """A run goes on after epoch min_epochs * factor^k only among the best 1/factor of the trials that have come so far (Li et al., ASHA,
    arXiv 1810.05934); of fewer than `factor` trials, only as the best. Optuna's SuccessiveHalvingPruner by batches.

    min_epochs: epochs of the first rung. factor: the paper's reduction factor eta.
    """

    def __init__(self, *, min_epochs: int = 1, factor: int = 4) -> None:
        if min_epochs < 1 or factor < 2:
            raise ValueError(f"min_epochs must be at least 1 and factor at least 2, got {min_epochs} and {factor}")
        self.min_epochs, self.factor = min_epochs, factor

    def bars(self, complete: Sequence[Curve], halted: Sequence[Curve], *, mode: Mode) -> Curve:
        """The value to reach by epoch, where there is one."""
        curves, found, rung = [*complete, *halted], {}, self.min_epochs
        best = max if mode == "max" else min
        while rungs := [best(value for epoch, value in curve.items() if epoch <= rung) for curve in curves if rung in curve]:
            kept = max(1, (len(rungs) + 1) // self.factor)  # of the trials there, the new one among them
            if kept <= len(rungs):
                found[rung] = sorted(rungs, reverse=mode == "max")[kept - 1]
            rung *= self.factor
        return found
