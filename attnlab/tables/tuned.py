"""Tuned tables: every cell under each of some values, seed by seed, and shown under those that are best by validation images.

Every row gets the same number of runs, so none wins by having been tuned and the others not. The choice is a cell's own, one for all of
its seeds; test images have no part in it.
"""

import itertools
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from attnlab.config.overrides import key_of
from attnlab.config.plan import Plan
from attnlab.config.targets import ConfigError
from attnlab.records.query import less_is_better
from attnlab.records.record import FAILED, FINISHED
from attnlab.tables.model import Cell, Note, RunOfCell

Words = tuple[str, ...]


@dataclass(frozen=True)
class Tune:
    """over: values by key, all combinations of them; by: a metric of validation images, its mean over the seeds decides."""

    over: Mapping[str, Words]
    by: str = "val/acc"

    def tried(self) -> tuple[Words, ...]:
        """The overrides of every combination."""
        pairs = ([f"{key}={value}" for value in values] for key, values in self.over.items())
        return tuple(itertools.product(*pairs))

    def refuse(self, words: Sequence[str], where: str) -> None:
        """ConfigError for overrides that give a tuned key a value of its own."""
        for word in words:
            if key_of(word) in self.over:
                raise ConfigError(f"{where}: {word!r} gives a value to what this table tunes; leave it out")

    def check(self, plan: Plan, where: str) -> None:
        """ConfigError for a cell without validation images."""
        if self.by.startswith("val/") and not plan.full["data"].get("val"):
            raise ConfigError(f"{where}: tuned by {self.by}, it needs validation images: add data.val=0.1 to `common`")


def read_tune(tree: Mapping[str, Any]) -> Tune:
    """`tune:` of a table: {over: {key: [values]}, by: metric}, its keys and types known to be right."""
    over = {}
    for key, values in tree["over"].items():
        words = [json.dumps(value) if isinstance(value, bool) else str(value) for value in values] if isinstance(values, list) else []
        if len(set(words)) < max(2, len(words)) or not all(isinstance(value, str | int | float) for value in values):
            raise ConfigError(f"tune.over.{key}: must be a list of two or more different values")
        over[str(key)] = tuple(words)
    tune = Tune(over, tree.get("by", "val/acc"))
    if not over:
        raise ConfigError("tune.over: must be keys with the values to try")
    if not tune.by.startswith(("val/", "train/")):
        raise ConfigError(f"tune.by={tune.by}: test images are not for tuning by; take val/acc or val/nll, and data.val=0.1")
    return tune


@dataclass(frozen=True)
class Choice:
    """What of a tuned cell is shown: `runs`, a seed each, under `words`; or no words and the runs that the choice waits for.

    others: the cell's other runs. lost: combinations that cannot be chosen since a run of theirs failed.
    """

    runs: tuple[RunOfCell, ...]
    others: tuple[RunOfCell, ...] = ()
    words: Words | None = None
    lost: tuple[Words, ...] = ()


def choose(tune: Tune, runs: Sequence[RunOfCell], judged: Mapping[str, float | None]) -> Choice:
    """The best combination of a cell, of runs seed by seed, each seed's in the order of `tune.tried()`; judged: `by` by address.

    Nothing is chosen before every run is finished or failed, so a choice is never made among those that were quicker. One whose run
    failed, or is without a finite value, is not chosen; of equals the first is.
    """
    tried = tune.tried()
    groups = {words: tuple(runs[n :: len(tried)]) for n, words in enumerate(tried)}
    waiting = tuple(run for run in runs if run.status not in (FINISHED, FAILED))
    found = {words: [judged[run.address] if run.status == FINISHED else None for run in group] for words, group in groups.items()}
    means = {words: statistics.fmean(values) for words, values in found.items() if all(v is not None and math.isfinite(v) for v in values)}
    lost = tuple(words for words in tried if words not in means)
    if waiting or not means:
        shown = waiting or tuple(run for run in runs if run.status == FAILED)
        return Choice(shown, tuple(run for run in runs if run not in shown), lost=() if waiting else lost)
    best = (min if less_is_better(tune.by) else max)(means, key=means.__getitem__)
    return Choice(groups[best], tuple(run for words in tried if words != best for run in groups[words]), best, lost)


def notes(tune: Tune, cells: Mapping[tuple[str, str], Cell], choices: Mapping[tuple[str, str], Choice]) -> list[Note]:
    """What was tried, what was chosen where, and what a reader would doubt: an end of the range, combinations that failed."""
    tried = "; ".join(f"{key} {', '.join(values)}" for key, values in tune.over.items())
    seeds = max(len(cell.every) for cell in cells.values()) // len(tune.tried())
    budget = f"{len(tune.tried())} x {seeds} runs a cell"
    found = [Note("tuned", f"tuned, a cell at a time, by the mean of {tune.by} over its seeds: {tried}; {budget}")]
    for words in tune.tried():
        if places := _places([place for place, choice in choices.items() if choice.words == words], choices):
            found.append(Note("tuned", f"chosen {' '.join(words)}: {places}"))
    for key, values in tune.over.items():
        ends = {f"{key}={value}" for value in _ends(values)}
        if places := _places([place for place, choice in choices.items() if ends & set(choice.words or ())], choices):
            found.append(Note("tuned", f"at an end of the range of {key}, beyond which it might be better: {places}"))
    for words in tune.tried():
        if places := _places([place for place, choice in choices.items() if words in choice.lost], choices):
            found.append(Note("tuned", f"not chosen since a run failed, {' '.join(words)}: {places}"))
    if open_ := _places([place for place, choice in choices.items() if choice.words is None], choices):
        found.append(Note("tuned", f"not chosen yet: {open_}"))
    return found


def _ends(values: Sequence[str]) -> tuple[str, ...]:
    """The smallest and the largest of numbers; nothing of words."""
    try:
        return min(values, key=float), max(values, key=float)
    except ValueError:
        return ()


def _places(places: Sequence[tuple[str, str]], everything: Mapping[tuple[str, str], Any]) -> str:
    """Rows, each with its columns where it is not in all of them."""
    columns = dict.fromkeys(column for _, column in everything)
    rows = {row: [column for one, column in places if one == row] for row in dict.fromkeys(row for row, _ in places)}
    return ", ".join(row if len(mine) == len(columns) else f"{row} ({', '.join(mine)})" for row, mine in rows.items())
