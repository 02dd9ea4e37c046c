"""Teachers in a table: `teacher=@ROW` in a row's overrides is that row's run of the same column and seed; any other word names a network
as it does for attnlab.train, among the runs of the table's outputs."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from attnlab.config.plan import Plan
from attnlab.config.suggest import nearest
from attnlab.config.targets import ConfigError
from attnlab.config.teacher import TRAINING, find_teacher
from attnlab.tables.plan_cache import plans_of
from attnlab.tables.spec import TEACHER, teacher_row

Place = tuple[str, str]  # labels of row and column


def compose_table(cells: Mapping[Place, Sequence[str]], seeds: Sequence[int]) -> dict[Place, list[Plan]]:
    """The plans of every cell, a seed each; a teacher's row before those that follow it, by the address of its training.

    ConfigError: a row that is not there, or rows that follow each other in a circle.
    """
    found: dict[Place, list[Plan]] = {}
    waiting = {place: list(words) for place, words in cells.items()}
    for (row, column), words in waiting.items():
        label = teacher_row(words)
        if label is not None and (label, column) not in cells:
            raise ConfigError(f"rows.{row}: {TEACHER}{label}: there is no such row; {nearest(label, [name for name, _ in cells])}")
    while waiting:
        ready = {place: words for place, words in waiting.items() if (label := teacher_row(words)) is None or (label, place[1]) in found}
        if not ready:
            raise ConfigError(f"rows: {', '.join(dict.fromkeys(row for row, _ in waiting))} follow each other as teachers in a circle")
        alone = [place for place, words in ready.items() if teacher_row(words) is None]
        found |= dict(zip(alone, plans_of([ready[place] for place in alone], seeds), strict=True))
        taught = [place for place in ready if place not in alone]
        for number, seed in enumerate(seeds):
            own = [_with_training(ready[place], found[teacher_row(ready[place]), place[1]][number]) for place in taught]
            for place, (plan,) in zip(taught, plans_of(own, [seed]), strict=True):
                found.setdefault(place, []).append(plan)
        waiting = {place: words for place, words in waiting.items() if place not in ready}
    return {place: found[place] for place in cells}


def named_in(words: Sequence[str], outputs: Path) -> list[str]:
    """Overrides with a run that `teacher=` names by the address of its training: what they say wherever the runs lie.

    ConfigError: there is no such run in `outputs`.
    """
    return [_identified(word, outputs) for word in words]


def _identified(word: str, outputs: Path) -> str:
    key, _, value = word.partition("=")
    if key.lstrip("+") != "teacher" or value in ("", "null") or f"teacher={value}".startswith(TEACHER):
        return word
    found = find_teacher(value, outputs=outputs).identity
    return f"{key}={found}" if found.startswith(TRAINING) else word  # a file of weights is found by its path


def _with_training(words: Sequence[str], teacher: Plan) -> list[str]:
    kept = [word for word in words if not word.lstrip("+").startswith("teacher=")]
    return [*kept, f"teacher={TRAINING}{teacher.training}"]


def waves(plans: Sequence[Plan]) -> Iterator[list[int]]:
    """Positions of plans in the order in which they can run: those whose teacher is among the rest come after it."""
    waiting = list(range(len(plans)))
    trainings = [plan.training for plan in plans]
    while waiting:
        pending = {TRAINING + trainings[index] for index in waiting}
        ready = [index for index in waiting if plans[index].full["teacher"] not in pending]
        yield ready or waiting
        waiting = [index for index in waiting if ready and index not in ready]
