"""What of a table is still to do, how long that may take, and doing it through one of Hydra's launchers."""

import contextlib
import logging
import shlex
import statistics
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnlab.config.plan import Plan
from attnlab.records.index import Records
from attnlab.records.record import FINISHED, RUNNING
from attnlab.tables.model import RunOfCell, Table
from attnlab.tables.spec import Wanted
from attnlab.tables.teachers import waves
from attnlab.terminal import visible

log = logging.getLogger("attnlab")


@dataclass(frozen=True)
class Todo:
    """A run that is not finished and that nobody works on, and the cells that wait for it."""

    run: RunOfCell
    plan: Plan
    cells: tuple[tuple[str, str], ...]


def todo(table: Table, cells: Sequence[Wanted]) -> list[Todo]:
    """Every run once, in the order of the table; seed by seed, so that an early stop leaves all cells with some."""
    found: dict[str, Todo] = {}
    runs = {key: {run.address: run for run in cell.every} for key, cell in table.cells.items()}
    for number in range(len(cells[0].plans)):
        for cell in cells:
            key = cell.row.label, cell.column.label
            run = runs[key][cell.plans[number].address]
            if run.status not in (FINISHED, RUNNING):
                before = found.get(run.address)
                found[run.address] = Todo(run, cell.plans[number], (*(before.cells if before else ()), key))
    return list(found.values())


# ---- how long ---------------------------------------------------------------------------------------------------------------------


def estimate(plan: Plan, records: Records) -> tuple[float | None, str]:
    """Seconds that a run may take, from the recorded rates of the runs most like it, and where that comes from."""
    rated = [result for result in records.finished if _rate(result)]
    images = [result for result in rated if _about(result["config"], "data") == _about(plan.full, "data")]
    model = [result for result in rated if _about(result["config"], "model") == _about(plan.full, "model")]
    if not model:
        return None, f"no run of {_name(plan.full, 'model')} with these settings is recorded"
    both = [result for result in model if _about(result["config"], "data") == _about(plan.full, "data")]
    shape = images[0]["data"]["shape"] if images else None
    basis = _closest(plan, both or [result for result in model if result["data"]["shape"] == shape])
    if not basis or not images:
        return None, f"no run on {_name(plan.full, 'data')} is recorded"
    rate = statistics.median(map(_rate, basis))
    rest = statistics.median(_after_training(result) for result in basis) if both else 0.0
    seconds = plan.full["trainer"]["max_epochs"] * images[0]["data"]["images"]["train"] / rate + rest
    where = "the same data" if both else "other data"
    return seconds, f"{rate:,.0f} images/s, {len(basis)} runs of {_name(plan.full, 'model')} on {where}"


def _rate(result: Mapping[str, Any]) -> float:
    """Images per second, or 0 of a record without what an estimate needs."""
    rate, data = result.get("images_per_second"), result.get("data")
    whole = isinstance(data, dict) and isinstance(data.get("images"), dict) and data["images"].get("train") and data.get("shape")
    return rate if whole and isinstance(rate, int | float) else 0.0


def _about(config: Mapping[str, Any], group: str) -> Any:
    """What of a group bears on the time of an epoch."""
    node = config.get(group)
    if not isinstance(node, Mapping) or group != "data":
        return node
    return {key: value for key, value in node.items() if key in ("_target_", "path", "name", "size", "canvas", "limit", "val", "num_train")}


def _name(config: Mapping[str, Any], group: str) -> str:
    return str(config[group].get("name") or config[group]["_target_"].rpartition(".")[2])


def _closest(plan: Plan, results: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Those with the most of what else costs time in common."""

    def common(config: Mapping[str, Any]) -> tuple[int, ...]:
        parts = ("trainer", "attention", "regularizer", "loss", "optimizer")
        mine = [plan.full[part] if part != "trainer" else plan.full[part]["accelerator"] for part in parts]
        theirs = [config.get(part) if part != "trainer" else (config.get(part) or {}).get("accelerator") for part in parts]
        return (sum(one == other for one, other in zip(mine, theirs, strict=True)),)

    scored = [(common(result["config"]), result) for result in results]
    best = max((score for score, _ in scored), default=None)
    return [result for score, result in scored if score == best]


def _after_training(result: Mapping[str, Any]) -> float:
    seconds = result.get("stage_seconds")
    return sum(value for stage, value in seconds.items() if stage != "fit") if isinstance(seconds, dict) else 0.0


def spell(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`, `2.1 days`."""
    for unit, size, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds / size < most:
            return f"{seconds / size:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{seconds / 86400:.1f} days"


def plan_text(table: Table, jobs: Sequence[Todo], records: Records, *, outputs: Path = Path("outputs")) -> str:
    """The missing runs, cell by cell, with their commands and an estimate."""
    total = len({run.address for cell in table.cells.values() for run in cell.every})
    running = sorted({run.run_id for cell in table.cells.values() for run in cell.every if run.status == RUNNING})
    lines = [f"{table.name}: {len(jobs)} of {total} runs to do" + (f", {len(running)} running" if running else "")]
    where = [] if outputs == Path("outputs") else [f"paths.outputs={outputs}"]
    groups: dict[tuple[Any, ...], list[Todo]] = {}
    for job in jobs:
        groups.setdefault((job.cells, tuple(word for word in job.plan.overrides if not word.startswith("seed="))), []).append(job)
    known, unknown = 0.0, 0
    for (cells, words), group in groups.items():
        seconds, basis = estimate(group[0].plan, records)
        names = [f"{row}, {column}" for row, column in cells]
        name = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more cells of the same runs"
        states = "; ".join(
            f"{status} {', '.join(str(job.run.seed) for job in group if job.run.status == status)}"
            for status in dict.fromkeys(job.run.status for job in group)
        )
        if seconds is None:
            unknown += len(group)
            lines.append(f"  {name}: {states}; time unknown ({basis})")
        else:
            known += seconds * len(group)
            lines.append(f"  {name}: {states}; about {spell(seconds)} each ({basis})")
        seeds = ",".join(str(job.run.seed) for job in group)
        lines.append(f"    {shlex.join(['python', '-m', 'attnlab.train', '-m', *words, f'seed={seeds}', *where])}")
    if jobs:
        parts = [f"about {spell(known)} one after another"] if known else []
        parts += [f"{unknown} runs of unknown time"] if unknown else []
        lines.append("in all " + ", and ".join(parts))
    return visible("\n".join(lines) + "\n")


# ---- doing it ---------------------------------------------------------------------------------------------------------------------


def job(plan: Plan) -> float | None:
    """One run, in whatever process a launcher puts it. Standard output is the table's: the record's path goes to stderr."""
    from attnlab.pipeline.train import train

    with contextlib.redirect_stdout(sys.stderr):
        return train(plan)


def run(jobs: Sequence[Todo], *, outputs: Path, launcher: Sequence[str] = ()) -> int:
    """Run the jobs as a sweep through the launcher that the words choose (hydra/launcher=..., hydra.launcher...); how many failed.

    Where some are the teachers of others, those are a sweep before.
    """
    from attnlab.sweeps import sweep

    where, failed = f"paths.outputs={outputs}", 0
    with contextlib.redirect_stdout(sys.stderr):
        for wave in waves([todo.plan for todo in jobs]):
            words = [[*jobs[index].plan.overrides, where] for index in wave]
            done = sweep.launch(words, options=[*launcher, where], job=job)
            failed += sum(one.outcome == sweep.FAILED for one in done)
    return failed
