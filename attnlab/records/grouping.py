"""Grouping: runs by what they differ in: mean and spread of a metric over the runs of a row, the best row first."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from attnlab.config.groups import GROUPS, having
from attnlab.records.query import StoredRun, is_number, less_is_better, shown

# keys in which the runs of one row may differ without being another experiment
ASIDE = ("seed", "data.seed", "name", "force", "check", "retries", "fail_fast", "same_code", "objective", "halt", "allow_targets", "paths")
ASIDE += ("logger",)
ASIDE += ("trainer.checkpoint_seconds", "trainer.progress", "trainer.threads", "data.root", "data.num_workers", "data.resident")


@dataclass
class Row:
    """The runs that agree in some keys. values: the metric, run by run."""

    key: tuple[str, ...]
    values: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def sd(self) -> float | None:
        """Sample standard deviation, or None of one run."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def cells(self) -> list[str]:
        return [*self.key, f"{self.mean:.4f}", "" if self.sd is None else f"{self.sd:.4f}", str(len(self.values))]


HEADS = ("mean", "sd", "n")  # of `Row.cells`, after the keys


def rows_of(pairs: Iterable[tuple[Sequence[str], float]], *, metric: str) -> list[Row]:
    """A row for each key among the pairs (key, value), the best mean first."""
    found: dict[tuple[str, ...], Row] = {}
    for key, value in pairs:
        found.setdefault(tuple(key), Row(tuple(key))).values.append(float(value))
    sign = 1 if less_is_better(metric) else -1
    return sorted(found.values(), key=lambda row: sign * row.mean)


def word_of(run: StoredRun, key: str, *, none: str = "-") -> str:
    """What a run has under a key, in one word: of a group its choice, or its choices; `none` where it has none."""
    return run.choice(key) or ",".join(map(shown, run.get(key))) or none


def number_of(run: StoredRun, metric: str) -> float | None:
    value = next(iter(run.get(metric)), None)
    return float(value) if is_number(value) else None


def hidden_keys(runs: Sequence[StoredRun], by: Sequence[str], metric: str) -> list[str]:
    """The keys, less `by` and the seeds, in which runs of one row differ: such a row is of several experiments.

    What is asked of a trained network does not change its test; a component that one run has and another has not is its group.
    """
    found: dict[str, None] = {}
    first: dict[tuple[str, ...], StoredRun] = {}
    tested = metric.startswith(("test/", "val/", "train/"))
    aside = tuple(f"{key}." for key in (*ASIDE, *by, *(("data.ood", *having(trains=False)) if tested else ())))
    for run in runs:
        other = first.setdefault(tuple(word_of(run, key) for key in by), run)
        if other is not run:
            differing = [key for key in {**run.leaves, **other.leaves} if run.leaves.get(key, ...) != other.leaves.get(key, ...)]
            found.update(dict.fromkeys(_named(key, run, other) for key in differing if not f"{key}.".startswith(aside)))
    return list(found)


def _named(key: str, *runs: StoredRun) -> str:
    group = key.partition(".")[0]
    return group if group in GROUPS and len({run.choice(group) for run in runs}) > 1 else key
