"""A table in W&B: rows against columns without hand work, online or as offline files for `wandb sync`.

    log_table(table, outputs=Path("outputs"))

One W&B run of job_type `table` holds the table (as W&B Tables, which are artifacts, and as the artifact `table-NAME`), every cell's mean
with its direction, and an attention overlay and the score histograms a cell. Beside it every finished seed of every cell is a W&B run of
job_type `seed` in the group `NAME: ROW | COLUMN`, tagged with its components, made from the record; a run that two cells share is
there twice, once in each group. All of them carry `table_name`, `table_row` and `table_column` in their config: what a workspace groups by
(scripts/wandb_workspace.py). Logged again, the same ids go on, by what W&B does not have yet.
"""

import hashlib
import logging
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attnlab.config.result import read_result
from attnlab.loggers.flat import flat_config
from attnlab.loggers.wandb import WandbLogger
from attnlab.loggers.wandb_log import sync_command
from attnlab.records.pictures import pictures_of
from attnlab.records.query import StoredRun
from attnlab.records.record import read_history
from attnlab.tables.model import Cell, RunOfCell, Table
from attnlab.tables.views.html.labels import number

log = logging.getLogger("attnlab")

TABLE_ROW = "(table)"  # what the table's own run has instead of a row and a column
VALUE = "table/value"  # a seed's value of the table's metric, as shown
CELLS, SEEDS, MATRIX = "table/cells", "table/seeds", "table/matrix"
PICTURES = 200  # of all cells together, at most


class Review(WandbLogger):
    """A W&B run that can also hold versioned tables and numbers with a stated direction."""

    def artifact(self, name: str, tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]]) -> None:
        """Tables under names of their own, versioned from one logging to the next."""
        if self._run is not None:
            self._try("artifact", self._versioned, name, tables)

    def numbers(self, values: Mapping[str, float | None], way: Literal["max", "min"]) -> None:
        """Into the summary, all with one direction."""
        if self._run is not None:
            self._try("summary", self._directed, {key: value for key, value in values.items() if value is not None}, way)

    def _versioned(self, name: str, tables: Mapping[str, tuple[Sequence[str], Sequence[Sequence[Any]]]]) -> None:
        import wandb

        made = {key: wandb.Table(columns=list(columns), data=[list(row) for row in rows]) for key, (columns, rows) in tables.items()}
        self._store(name, made, kind="table")

    def _directed(self, values: Mapping[str, float], way: str) -> None:
        for key in values:
            self._run.define_metric(key, summary=way)
        self._run.summary.update(values)


def log_table(
    table: Table,
    *,
    outputs: Path,
    project: str = "attnlab",
    entity: str | None = None,
    mode: Literal["auto", "online", "offline"] = "auto",
    seeds: bool = True,
) -> str | None:
    """Log `table` and its finished seeds (unless seeds is False) and return what to do next: the `wandb sync` command, or the address.

    The files go to outputs/tables/NAME/wandb. As with the logger of a run, what goes wrong with W&B is a warning and no error; None then.
    """
    folder = Path(outputs) / "tables" / slug(table.name)
    folder.mkdir(parents=True, exist_ok=True)
    hint = None
    for cell, one in _finished(table) if seeds else ():
        hint = _log_seed(table, cell, one, Review(project=project, entity=entity, mode=mode), folder)
        if hint and hint.startswith("wandb sync"):
            mode = "offline"  # a network that failed once is not waited for again and again
    hint = _log_whole(table, Review(project=project, entity=entity, mode=mode, pictures=PICTURES), folder)
    if hint and hint.startswith("wandb sync"):
        hint = sync_command([folder])
    if hint:
        log.info("%s", hint)
    return hint


def identity(table: Table) -> str:
    """The id of the table's own W&B run. One with other overrides is another table."""
    return f"table-{slug(table.name)}" + (f"-{_hash(table.variant)}" if table.variant else "")


def group(table: Table, cell: Cell) -> str:
    name = f"{table.name}: {cell.row} | {cell.column}"
    return name if len(name) <= 128 else f"{name[:119]} {_hash(name)}"  # W&B's limit


def slug(text: str) -> str:
    """For keys and file names: what is no letter, digit or . _ + = - becomes one _."""
    return re.sub(r"[^\w.+=-]+", "_", text).strip("_") or "_"


def columns_of(table: Table) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """The table three times: a line a cell, a line a seed, and rows against columns as a reader would write it."""
    names = ["row", "column", "mean", "sd", "n", "low", "high", "paper", "paper_sd", "mark", "difference", "verdict"]
    cells, seeds = [], []
    for cell in table.cells.values():
        low, high = cell.interval or (None, None)
        paper, paired = cell.paper, cell.paired
        published = [paper.value, paper.sd, paper.mark] if paper else [None, None, None]
        against = [paired.difference, paired.p, paired.n] if paired else [None, None, None]
        cells.append([cell.row, cell.column, cell.mean, cell.sd, cell.n, low, high, *published, cell.difference, cell.verdict, *against])
        seeds += [[cell.row, cell.column, run.seed, run.status, run.value, run.run_id, run.error] for run in cell.runs]
    matrix = [[row, *(_written(table, table.cells.get((row, column))) for column in table.columns)] for row in table.rows]
    header = [f"{table.name}, {table.metric.label}", *table.columns]
    return {
        CELLS: ([*names, "baseline_difference", "baseline_p", "baseline_n"], cells),
        SEEDS: (["row", "column", "seed", "status", "value", "run", "error"], seeds),
        MATRIX: (header, matrix),
    }


def _written(table: Table, cell: Cell | None) -> str:
    if cell is None:
        return ""
    digits = table.metric_of(cell.column).digits
    states = Counter(run.status for run in cell.runs if run.status != "finished")
    rest = ", ".join(f"{count} {status}" for status, count in states.items())
    if cell.mean is None:
        return rest or "missing"
    sd = f" ± {number(cell.sd, digits)}" if cell.sd is not None else ""
    paper = f"; paper {number(cell.paper.value, digits)}: {cell.verdict}" if cell.paper else ""
    return f"{number(cell.mean, digits)}{sd} (n = {cell.n}{f', {rest}' if rest else ''}{paper})"


def _log_whole(table: Table, run: Review, folder: Path) -> str | None:
    metric = table.metric
    config = {
        "table_name": table.name, "table_row": TABLE_ROW, "table_column": TABLE_ROW, "title": table.title, "paper": table.paper,
        "rows": list(table.rows), "columns": list(table.columns), "metric": metric.key, "metric_label": metric.label,
        "direction": metric.direction, "baseline": table.baseline, "variant": table.variant, "command": table.command,
        "notes": [note.text for note in table.notes],
    }  # fmt: skip
    tags = ["table", table.name, *(["variant"] if table.variant else [])]
    name = f"table {table.name}" + (" (variant)" if table.variant else "")
    run.open(
        folder=folder, run_id=identity(table), name=name, config=config, group=table.name, tags=tags, resumed=False,
        job_type="table", notes=table.command,
    )  # fmt: skip
    whole = columns_of(table)
    for key, (columns, rows) in whole.items():
        run.table(key, columns, rows)
    run.artifact(identity(table), {key.rpartition("/")[2]: value for key, value in whole.items()})
    logged: set[Path] = set()  # one run may fill many cells: its picture once
    for cell in table.cells.values():
        key = f"{slug(cell.row)}/{slug(cell.column)}"
        for kind, path in _pictures(cell).items():
            if path not in logged:
                run.figure(f"{kind}/{key}", path)
                logged.add(path)
        run.numbers({f"mean/{key}": cell.mean}, table.metric_of(cell.column).direction)
    verdicts = Counter(cell.verdict for cell in table.cells.values())
    states = Counter(one.status for cell in table.cells.values() for one in cell.every)
    run.summary(
        {f"verdicts/{slug(name)}": count for name, count in verdicts.items()} | {f"runs/{name}": count for name, count in states.items()}
    )
    run.close(failed=False)
    return run.hint


def _finished(table: Table) -> Iterator[tuple[Cell, RunOfCell]]:
    return ((cell, run) for cell in table.cells.values() for run in cell.runs if run.status == "finished" and run.folder)


def _log_seed(table: Table, cell: Cell, one: RunOfCell, run: Review, folder: Path) -> str | None:
    found = read_result(one.folder)
    result = found.result
    config = result.get("config") if isinstance(result.get("config"), dict) else {}
    metrics = result.get("metrics") if isinstance(result.get("metrics"), dict) else {}
    about = {"table_name": table.name, "table_row": cell.row, "table_column": cell.column, "run_id": one.run_id}
    run.open(
        folder=folder,
        run_id=f"{_hash(identity(table), cell.row, cell.column)}-s{one.seed}-{one.address}",
        name=f"{cell.row} | {cell.column} | seed {one.seed}",
        config={**flat_config(StoredRun(found)), **about},
        group=group(table, cell),
        tags=[table.name, *components(config)],
        resumed=False,
        job_type="seed",
        notes=str(result.get("command", "")),
    )
    for row in read_history(one.folder / "metrics.csv"):
        run.log(row, step=int(row["epoch"]))
    for picture in pictures_of(one.folder, result):
        if picture.kind in ("attention", "explanation", "ood_scores", ""):  # the others can be drawn from what is logged
            run.figure(f"figures/{picture.path.stem}", picture.path)
    run.summary({key: value for key, value in metrics.items() if isinstance(value, int | float)})
    run.numbers({VALUE: one.value}, table.metric_of(cell.column).direction)
    run.close(failed=False)
    return run.hint


def components(config: Mapping[str, Any]) -> list[str]:
    """The names a reader would look for: attention, regularizers, and a loss that is not the usual one."""
    found = [str(name) for group in ("attention", "regularizer") if isinstance(config.get(group), Mapping) for name in config[group]]
    loss = config.get("loss")
    target = str(loss.get("_target_", "")).rpartition(".")[2] if isinstance(loss, Mapping) else ""
    return [*found, *([target] if target and target != "CrossEntropy" else [])]


def _pictures(cell: Cell) -> dict[str, Path]:
    """One attention overlay, the score histograms and the explanations of a cell's first finished seed that has them."""
    keys, found = {"attention": "attention", "ood_scores": "scores", "explanation": "explanation"}, {}
    for run in cell.runs:
        if run.status == "finished" and run.folder:
            for picture in pictures_of(run.folder, read_result(run.folder).result):
                if picture.kind in keys:
                    found.setdefault(keys[picture.kind], picture.path)
    return found


def _hash(*words: str) -> str:
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:8]
