"""Fill a table from the records on disk: what its cells' runs are, what became of them, and what follows for the published values."""

import dataclasses
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnlab.config.plan import Plan
from attnlab.config.targets import ConfigError
from attnlab.records.index import Records, digests
from attnlab.records.record import FINISHED
from attnlab.tables import statistics, tuned
from attnlab.tables.footnotes import footnotes
from attnlab.tables.model import Cell, RunOfCell, Table, bounds
from attnlab.tables.spec import SOURCES, Line, Spec, Wanted, departures, teacher_row
from attnlab.tables.teachers import compose_table, named_in

ABOUT = ("parameters", "images_per_second", "seconds")  # of a record's own keys, those that a column may show


def wanted(spec: Spec, overrides: Sequence[str], seeds: Sequence[int], *, outputs: Path) -> tuple[list[Wanted], str | None]:
    """Every cell with its plans, and the variant's label: None where the overrides leave all addresses as they are."""
    cells = [(row, column) for row in spec.rows for column in spec.columns]
    label, overrides = " ".join(overrides), named_in(overrides, outputs)
    if spec.tune:
        spec.tune.refuse(overrides, "overrides")
    base = {(row.label, column.label): named_in(spec.overrides(row, column), outputs) for row, column in cells}
    plans = _compose(spec, base, overrides, seeds)
    if not overrides:
        return [Wanted(row, column, tuple(group), ()) for (row, column), group in zip(cells, plans, strict=True)], None
    own = _compose(spec, base, (), seeds[:1])
    _refuse_merged(spec, cells, [group[0].address for group in plans], [group[0].address for group in own])
    found = []
    for (row, column), group, (first, *_) in zip(cells, plans, own, strict=True):
        departs = departures(group[0], first)
        if teacher_row([*base[row.label, column.label], *overrides]) is not None:  # that row, under the same overrides
            departs = [key for key in departs if key != "teacher"]
        found.append(Wanted(row, column, tuple(group), tuple(_bearing(departs, spec.key(row, column)))))
    changed = any(group[0].address != first.address for group, (first, *_) in zip(plans, own, strict=True))
    return found, label if changed else None


def _compose(spec: Spec, base: Mapping[tuple[str, str], Sequence[str]], overrides: Sequence[str], seeds: Sequence[int]) -> list[list[Plan]]:
    """The plans of every cell; in a tuned table those of the first seed, one a combination, then those of the next."""
    words = {place: [*mine, *overrides] for place, mine in base.items()}
    if spec.tune is None:
        return list(compose_table(words, seeds).values())
    every = [compose_table({place: [*mine, *tried] for place, mine in words.items()}, seeds) for tried in spec.tune.tried()]
    for place in base:
        spec.tune.check(every[0][place][0], f"{place[0]}, {place[1]}")
    return [[found[place][n] for n in range(len(seeds)) for found in every] for place in base]


def _bearing(keys: Iterable[str], metric: str) -> list[str]:
    """Which of the departures bear on this metric: OOD heads and sets do not on the accuracy, nor one head on another's metric."""
    part, _, rest = metric.partition("/")
    head = f"ood.{rest.partition('/')[0]}." if part == "ood" else None
    return [key for key in keys if not f"{key}.".startswith(("ood.", "data.ood", "objective.")) or (head and key.startswith(head))]


def _refuse_merged(spec: Spec, cells: list[tuple[Line, Line]], now: list[str], before: list[str]) -> None:
    """An override that makes two different cells one run (data=... over columns of data sets) would put one number under two names."""
    runs: dict[tuple[str, str], int] = {}
    for index, (row, column) in enumerate(cells):
        other = runs.setdefault((now[index], spec.key(row, column)), index)
        if before[other] != before[index]:
            kind, one, two = next(
                (kind, a.label, b.label)
                for kind, a, b in (("columns", cells[other][1], column), ("rows", cells[other][0], row))
                if a.label != b.label
            )
            raise ConfigError(
                f"overrides: they make {one!r} and {two!r} one and the same run; take one of them, for example '{kind}=[{one}]'"
            )


def fill(
    spec: Spec,
    *,
    outputs: Path,
    overrides: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    command: str = "",
    records: Records | None = None,
) -> tuple[Table, list[Wanted], Records]:
    """The table as the records under `outputs` have it, with what it was made of. records: those of another table, where they are read."""
    seeds = tuple(spec.seeds if seeds is None else seeds)
    cells, variant = wanted(spec, overrides, seeds, outputs=outputs)
    records = records or Records(outputs)
    choices = {(cell.row.label, cell.column.label): _choice(cell, spec, records) for cell in cells}
    filled, shown = {}, []
    for cell in cells:
        key = cell.row.label, cell.column.label
        addresses = {run.address for run in choices[key].runs}
        shown.append(dataclasses.replace(cell, plans=tuple(plan for plan in cell.plans if plan.address in addresses)))
        baseline = choices[spec.baseline, key[1]].runs if spec.baseline not in (None, key[0]) else ()
        filled[key] = _cell(shown[-1], spec, choices[key], baseline, [records.find(plan.address).result for plan in shown[-1].plans])
    tuning = tuned.notes(spec.tune, filled, choices) if spec.tune else []
    table = Table(
        spec.name, spec.title, spec.paper, _in_order(spec, filled), tuple(column.label for column in spec.columns),
        spec.metric, filled, spec.baseline, (*tuning, *footnotes(spec, shown, filled, records, variant, asked=len(seeds))),
        command or _command(spec.name, overrides), variant, {line.label: line.metric for line in spec.columns if line.metric},
    )  # fmt: skip
    return table, cells, records


def _in_order(spec: Spec, cells: Mapping[tuple[str, str], Cell]) -> tuple[str, ...]:
    """The rows as the table names them, or by the means of its column `sort`: the best first, those without one last."""
    rows = [row.label for row in spec.rows]
    if spec.sort is None:
        return tuple(rows)
    metric = next(spec.metric_of(column) for column in spec.columns if column.label == spec.sort)
    sign = -1 if metric.direction == "max" else 1
    means = {row: cells[row, spec.sort].mean for row in rows}
    return tuple(sorted(rows, key=lambda row: math.inf if means[row] is None else sign * means[row]))


def _command(name: str, overrides: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "attnlab.table", f"table={name}", *([f"overrides=[{','.join(overrides)}]"] if overrides else [])])


def number_of(result: Mapping[str, Any], key: str) -> Any:
    """What a record has under a metric's name, among its timings, or of what it says of the run itself (ABOUT); None: nothing."""
    numbers = {name: result.get(name) for name in ABOUT} | result.get("timings", {}) | result["metrics"]
    return numbers.get(key)


def _runs(cell: Wanted, spec: Spec, records: Records) -> tuple[RunOfCell, ...]:
    key, metric, found = spec.key(cell.row, cell.column), spec.metric_of(cell.column), []
    for plan in cell.plans:
        run = records.find(plan.address)
        value, error = None, run.error
        if run.status == FINISHED:
            value = number_of(run.result, key)
            if not isinstance(value, int | float):
                value, error = None, f"the record has no {key}"
            else:
                value = metric.scale * (1 - value if metric.complement else value)
        seed = plan.full["seed"]
        run_id = run.folder.name if run.folder else plan.run_id
        found.append(RunOfCell(seed, run_id, plan.address, plan.overrides, run.status, value, run.folder, error))
    return tuple(found)


def _choice(cell: Wanted, spec: Spec, records: Records) -> tuned.Choice:
    """The runs that a cell shows: all of them, or in a tuned table those that were chosen."""
    runs = _runs(cell, spec, records)
    if spec.tune is None:
        return tuned.Choice(runs)
    judged = {run.address: number_of(records.find(run.address).result, spec.tune.by) for run in runs if run.status == FINISHED}
    return tuned.choose(spec.tune, runs, judged)


def _cell(wanted: Wanted, spec: Spec, choice: tuned.Choice, baseline: tuple[RunOfCell, ...], results: list[Mapping]) -> Cell:
    row, column, runs = wanted.row.label, wanted.column.label, choice.runs
    ours, theirs = ({run.seed: run.value for run in group if run.value is not None} for group in (runs, baseline))
    values, paper = list(ours.values()), spec.published.get((row, column))
    within = bounds(spec.key(wanted.row, wanted.column), scale=spec.metric_of(wanted.column).scale)
    interval = statistics.t_interval(values, within=within)
    middle = statistics.mean(values)
    same = _same_data(wanted, [result for result in results if result.get("status") == FINISHED])
    return Cell(
        row, column, runs, len(values), middle, statistics.sample_sd(values), interval, paper,
        middle - paper.value if paper and values else None,
        statistics.verdict(values, paper, margin=spec.margin, paper_runs=spec.paper_runs, same_data=same),
        statistics.paired_test(ours, theirs), choice.others, choice.words or (),
    )  # fmt: skip


def _same_data(wanted: Wanted, results: list[Mapping]) -> bool:
    """Whether the cell is the paper's experiment: nothing departs, or only where the images are from, and their digests are the paper's."""
    if not wanted.departs:
        return True
    if set(wanted.departs) - set(SOURCES) or not wanted.column.digests:
        return False
    return all(digests(result).get(split) == digest for result in results for split, digest in wanted.column.digests.items())
