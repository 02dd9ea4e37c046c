"""Learning-rate schedules: the factor on the base rate at every optimiser step.

Each function takes ``total_steps`` and ``steps_per_epoch`` of the run and returns a picklable ``f(step) -> factor`` for
``torch.optim.lr_scheduler.LambdaLR``, stepped once per optimiser step. Lengths are in epochs and may be fractions of one.

``warmup`` (epochs): over its n steps the factor rises linearly, step s (from 0) has (s + 1) / (n + 1) of what the schedule gives, so the
rate is never 0 and step n is the first in full. Lengths beyond the run's end are allowed (a shortened trial of a recipe): what they say is
simply not reached. ValueError: a negative length, a factor out of range, unsorted milestones, a run without steps.
"""

import math
from bisect import bisect_right
from collections.abc import Callable
from functools import partial
from typing import Literal

Schedule = Callable[[int], float]


def constant(*, warmup: float = 0.0, total_steps: int, steps_per_epoch: int) -> Schedule:
    """The base rate throughout, after the warm-up."""
    warmup_steps = _warmup_steps(warmup, total_steps, steps_per_epoch)
    return partial(_ramp, steps=warmup_steps)


def multistep(*, milestones: list[float], gamma: float = 0.2, warmup: float = 0.0, total_steps: int, steps_per_epoch: int) -> Schedule:
    """``gamma ** n`` once n milestones have passed: torch's MultiStepLR stepped per epoch.

    ``milestones``: sorted, in epochs (60: from the first step of epoch 60 on, counted from 0) or, where all are below 1, fractions of the
    run (0.3 of 200 epochs is 60). Counted from the start of training, warm-up included. A largest milestone of exactly 1 could mean either
    and is refused. Default gamma: the wide-ResNet recipe (1605.07146), x0.2 at 60, 120, 160 of 200 epochs.
    """
    warmup_steps = _warmup_steps(warmup, total_steps, steps_per_epoch)
    _positive("gamma", gamma)
    marks = [float(m) for m in milestones]
    if not all(0 <= m < math.inf for m in marks) or marks != sorted(marks):
        raise ValueError(f"milestones must be sorted and at least 0 (epochs, or fractions of training below 1), got {marks}")
    if marks and marks[-1] == 1:
        raise ValueError(f"milestones {marks}: 1 could be epoch 1 or the end of training; write a fraction below 1, or epochs above 1")
    unit = steps_per_epoch if marks and marks[-1] > 1 else total_steps
    return partial(_multistep, steps=tuple(round(m * unit) for m in marks), gamma=gamma, warmup_steps=warmup_steps)


def step_decay(*, every: float = 25.0, gamma: float = 0.5, warmup: float = 0.0, total_steps: int, steps_per_epoch: int) -> Schedule:
    """x ``gamma`` every ``every`` epochs: torch's StepLR. Defaults: Learn To Pay Attention (1804.02391)."""
    warmup_steps = _warmup_steps(warmup, total_steps, steps_per_epoch)
    _positive("gamma", gamma)
    if not 0 < every < math.inf or round(every * steps_per_epoch) < 1:
        raise ValueError(f"every must be a number of epochs of at least one step (1/{steps_per_epoch}), got {every}")
    return partial(_step_decay, every=round(every * steps_per_epoch), gamma=gamma, warmup_steps=warmup_steps)


def cosine(*, warmup: float = 0.0, final: float = 0.0, total_steps: int, steps_per_epoch: int) -> Schedule:
    """``final + (1 - final) (1 + cos(pi t)) / 2`` (1608.03983 without restarts), t from 0 to 1 between warm-up and end, per step."""
    warmup_steps = _warmup_steps(warmup, total_steps, steps_per_epoch)
    _fraction("final", final)
    return partial(_cosine, final=final, warmup_steps=warmup_steps, total_steps=total_steps)


def cycles(*, lengths: list[float], final: float = 0.0, warmup: float = 0.0, total_steps: int, steps_per_epoch: int) -> Schedule:
    """Cosines one after another, each from 1 down to ``final``, the next beginning at 1 again (1608.03983).

    ``lengths``: relative to each other, above 0; [1, 1, 1] are three of a third of the run. ``warmup`` is of the first. A callback that
    acts at the end of each cycle (snapshots, magnitude_pruning) takes the same lengths, see ``cycle_ends``.
    """
    _fraction("final", final)
    warmup_steps = _warmup_steps(warmup, total_steps, steps_per_epoch)
    return partial(_cycles, ends=cycle_ends(lengths, total_steps), final=final, warmup_steps=warmup_steps)


def cycle_ends(lengths: list[float], total_steps: int) -> tuple[int, ...]:
    """The number of steps done at the end of every cycle; the last is ``total_steps``. ValueError: no lengths, one that is not above 0."""
    if not lengths or not all(0 < length < math.inf for length in lengths):
        raise ValueError(f"lengths must be one or more numbers above 0, got {list(lengths)}")
    whole = math.fsum(lengths)
    return tuple(round(math.fsum(lengths[: i + 1]) / whole * total_steps) for i in range(len(lengths)))


def one_cycle(
    *,
    peak: float = 0.3,
    start: float = 0.04,
    final: float = 1e-4,
    anneal: Literal["cos", "linear"] = "cos",
    total_steps: int,
    steps_per_epoch: int,
) -> Schedule:
    """Up from ``start`` to 1 during the first ``peak`` of all steps, then down to ``final`` (1708.07120): torch's OneCycleLR.

    ``start`` and ``final`` are fractions of the base rate, which is the maximum (OneCycleLR: 1 / div_factor and
    1 / (div_factor final_div_factor), which is 4e-6 by its defaults). Differs from OneCycleLR in: the momentum stays.
    """
    _warmup_steps(0.0, total_steps, steps_per_epoch)
    for name, value in {"peak": peak, "start": start, "final": final}.items():
        _fraction(name, value)
    if anneal not in ("cos", "linear"):
        raise ValueError(f"anneal must be cos or linear, got {anneal!r}")
    top = max(peak * total_steps - 1, 0.0)
    return partial(_one_cycle, start=start, final=final, top=top, last=total_steps - 1, anneal=anneal)


def _ramp(step: int, *, steps: int) -> float:
    return min(1.0, (step + 1) / (steps + 1))


def _multistep(step: int, *, steps: tuple[int, ...], gamma: float, warmup_steps: int) -> float:
    return gamma ** bisect_right(steps, step) * _ramp(step, steps=warmup_steps)


def _step_decay(step: int, *, every: int, gamma: float, warmup_steps: int) -> float:
    return gamma ** (step // every) * _ramp(step, steps=warmup_steps)


def _cosine(step: int, *, final: float, warmup_steps: int, total_steps: int) -> float:
    done = min(max(step - warmup_steps, 0) / max(total_steps - warmup_steps, 1), 1.0)
    return (final + (1 - final) * (1 + math.cos(math.pi * done)) / 2) * _ramp(step, steps=warmup_steps)


def _cycles(step: int, *, ends: tuple[int, ...], final: float, warmup_steps: int) -> float:
    i = min(bisect_right(ends, step), len(ends) - 1)
    start = ends[i - 1] if i else 0
    return _cosine(step - start, final=final, warmup_steps=0 if i else warmup_steps, total_steps=ends[i] - start)


def _one_cycle(step: int, *, start: float, final: float, top: float, last: int, anneal: str) -> float:
    if step <= top:
        low, done = start, 1 - (step / top if top else 1.0)  # done: the way from the maximum to low
    else:
        low, done = final, min((step - top) / (last - top), 1.0) if last > top else 1.0
    weight = done if anneal == "linear" else (1 - math.cos(math.pi * done)) / 2
    return 1 + (low - 1) * weight


def _warmup_steps(warmup: float, total_steps: int, steps_per_epoch: int) -> int:
    for name, value in {"total_steps": total_steps, "steps_per_epoch": steps_per_epoch}.items():
        if not 1 <= value < math.inf:
            raise ValueError(f"{name} must be a positive number (the run's length must be known: set trainer.max_epochs), got {value}")
    if not 0 <= warmup < math.inf:
        raise ValueError(f"warmup must be at least 0 epochs, got {warmup}")
    return round(warmup * steps_per_epoch)


def _positive(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be above 0, got {value}")


def _fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")
