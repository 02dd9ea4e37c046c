"""Fill a table from the records on disk: what its cells' runs are, what became of them, and what follows for the published values."""

import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnlab.config.targets import ConfigError
from attnlab.records.index import Records, digests
from attnlab.records.record import FINISHED
from attnlab.tables import statistics
from attnlab.tables.footnotes import footnotes
from attnlab.tables.model import Cell, RunOfCell, Table, bounds
from attnlab.tables.spec import SOURCES, Line, Spec, Wanted, departures, teacher_row
from attnlab.tables.teachers import compose_table, named_in

ABOUT = ("parameters", "images_per_second", "seconds")  # of a record's own keys, those that a column may show


def wanted(spec: Spec, overrides: Sequence[str], seeds: Sequence[int], *, outputs: Path) -> tuple[list[Wanted], str | None]:
    """Every cell with its plans, and the variant's label: None where the overrides leave all addresses as they are."""
    cells = [(row, column) for row in spec.rows for column in spec.columns]
    label, overrides = " ".join(overrides), named_in(overrides, outputs)
    base = {(row.label, column.label): named_in(spec.overrides(row, column), outputs) for row, column in cells}
    plans = list(compose_table({place: [*words, *overrides] for place, words in base.items()}, seeds).values())
    if not overrides:
        return [Wanted(row, column, tuple(group), ()) for (row, column), group in zip(cells, plans, strict=True)], None
    own = list(compose_table(base, seeds[:1]).values())
    _refuse_merged(spec, cells, [group[0].address for group in plans], [group[0].address for group in own])
    found = []
    for (row, column), group, (first, *_) in zip(cells, plans, own, strict=True):
        departs = departures(group[0], first)
        if teacher_row([*base[row.label, column.label], *overrides]) is not None:  # that row, under the same overrides
            departs = [key for key in departs if key != "teacher"]
        found.append(Wanted(row, column, tuple(group), tuple(_bearing(departs, spec.key(row, column)))))
    changed = any(group[0].address != first.address for group, (first, *_) in zip(plans, own, strict=True))
    return found, label if changed else None


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
    runs = {(cell.row.label, cell.column.label): _runs(cell, spec, records) for cell in cells}
    filled = {}
    for cell in cells:
        key = cell.row.label, cell.column.label
        baseline = runs[spec.baseline, key[1]] if spec.baseline not in (None, key[0]) else ()
        filled[key] = _cell(cell, spec, runs[key], baseline, [records.find(plan.address).result for plan in cell.plans])
    table = Table(
        spec.name, spec.title, spec.paper, _in_order(spec, filled), tuple(column.label for column in spec.columns),
        spec.metric, filled, spec.baseline, tuple(footnotes(spec, cells, filled, records, variant)),
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


def _cell(wanted: Wanted, spec: Spec, runs: tuple[RunOfCell, ...], baseline: tuple[RunOfCell, ...], results: list[Mapping]) -> Cell:
    row, column = wanted.row.label, wanted.column.label
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
        statistics.paired_test(ours, theirs),
    )  # fmt: skip


def _same_data(wanted: Wanted, results: list[Mapping]) -> bool:
    """Whether the cell is the paper's experiment: nothing departs, or only where the images are from, and their digests are the paper's."""
    if not wanted.departs:
        return True
    if set(wanted.departs) - set(SOURCES) or not wanted.column.digests:
        return False
    return all(digests(result).get(split) == digest for result in results for split, digest in wanted.column.digests.items())
