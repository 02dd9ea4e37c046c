"""A table as it is written (configs/table/NAME.yaml), checked, and the runs that its cells are: composed plans, so addresses.

A run of a table is the run of `python -m attnlab.train` with the same words: nothing of the table goes into its configuration.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from attnlab.config.overrides import FOREIGN, key_of, permits
from attnlab.config.plan import Plan
from attnlab.config.signatures import conforms, describe
from attnlab.config.suggest import nearest
from attnlab.config.targets import ConfigError, config_dir
from attnlab.tables.model import Metric, Paper
from attnlab.tables.tuned import Tune, read_tune

# settings that say how numbers are computed, not what is learned from what: they make other runs, but no other experiment
COMPUTED = ("data.eval_batch_size", "trainer.accelerator", "trainer.devices", "trainer.strategy", "trainer.precision", "trainer.compile")

# settings that say where images come from: digests show which they are
SOURCES = ("data._target_", "data.path", "data.size", "data.ood_root", "data.test_file", "data.image_column", "data.label_column")


@dataclasses.dataclass(frozen=True)
class Line:
    """A row or a column: its overrides, the word that stands for it in the metric's key, and digests of the paper's own images.

    metric: of a column that shows another number than the table's others.
    """

    label: str
    overrides: tuple[str, ...]
    word: str
    digests: Mapping[str, str]
    metric: Metric | None = None


@dataclasses.dataclass(frozen=True)
class Spec:
    """A table yaml, checked. `published[row, column]` are the paper's values in the shown unit; `margin`: a difference of no consequence.

    `cells[row, column]` are overrides of one cell alone, after those of its column and row. `sort`: the column by whose means the rows are
    put in order, the best first. `tune`: values under which every cell is run, see `attnlab.tables.tuned`.
    """

    name: str
    title: str
    paper: str
    paper_runs: int
    metric: Metric
    margin: float
    common: tuple[str, ...]
    rows: tuple[Line, ...]
    columns: tuple[Line, ...]
    cells: Mapping[tuple[str, str], tuple[str, ...]]
    seeds: tuple[int, ...]
    baseline: str | None
    published: Mapping[tuple[str, str], Paper]
    notes: tuple[str, ...]
    sort: str | None = None
    tune: Tune | None = None

    def key(self, row: Line, column: Line) -> str:
        """The metric's key in result.json: `{row}` and `{column}` stand for the words of the cell's row and column."""
        return self.metric_of(column).key.replace("{row}", row.word).replace("{column}", column.word)

    def metric_of(self, column: Line) -> Metric:
        return column.metric or self.metric

    def overrides(self, row: Line, column: Line) -> list[str]:
        return [*self.common, *column.overrides, *row.overrides, *self.cells.get((row.label, column.label), ())]

    def only(self, rows: Sequence[str] | None, columns: Sequence[str] | None) -> "Spec":
        """The table without the rows and columns that are not named; a row keeps the one that is its teacher."""
        chosen = {}
        for kind, labels, lines in (("rows", rows, self.rows), ("columns", columns, self.columns)):
            known = [line.label for line in lines]
            for label in labels or []:
                if label not in known:
                    raise ConfigError(f"{kind}: table {self.name} has no {label!r}; {nearest(label, known)}")
            chosen[kind] = tuple(line for line in lines if labels is None or line.label in labels)
        for _ in self.rows:  # a teacher may have a teacher
            teachers = {teacher_row(self.overrides(row, column)) for row in chosen["rows"] for column in chosen["columns"]}
            chosen["rows"] = tuple(line for line in self.rows if line in chosen["rows"] or line.label in teachers)
        baseline = self.baseline if any(line.label == self.baseline for line in chosen["rows"]) else None
        sort = self.sort if any(line.label == self.sort for line in chosen["columns"]) else None
        return dataclasses.replace(self, **chosen, baseline=baseline, sort=sort)

    def sorted_by(self, column: str | None) -> "Spec":
        """The table in the order of that column; None leaves its own."""
        labels = [line.label for line in self.columns]
        if column is not None and column not in labels:
            raise ConfigError(f"sort: table {self.name} has no column {column!r}; {nearest(column, labels)}")
        return self if column is None else dataclasses.replace(self, sort=column)

    def permitting(self, words: Sequence[str]) -> "Spec":
        """The table with code or configs of somebody else (FOREIGN), as the command line permits them, before every cell."""
        return dataclasses.replace(self, common=(*words, *self.common))


TEACHER = "teacher=@"


def teacher_row(words: Sequence[str]) -> str | None:
    """The row that the last `teacher=` of some overrides names as `teacher=@ROW`, if it does."""
    given = [text for word in words if (text := word.lstrip("+")).startswith("teacher=")]
    return given[-1].removeprefix(TEACHER) if given and given[-1].startswith(TEACHER) else None


def table_names() -> list[str]:
    return sorted(path.stem for path in (config_dir() / "table").glob("*.yaml"))


def read_spec(table: str) -> Spec:
    """The table NAME of configs/table, or of a file ending in .yaml. ConfigError with the nearest names for what is not understood."""
    import yaml

    own = table.endswith((".yaml", ".yml"))
    path = Path(table) if own else config_dir() / "table" / f"{table}.yaml"
    if not path.is_file():
        raise ConfigError(f"table={table}: there is no such {'file' if own else f'table; {nearest(table, table_names())}'}")
    try:
        tree = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    try:
        return _spec(path.stem, tree)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


KEYS = {
    "title": str, "paper": dict, "metric": dict, "common": list[str], "rows": dict, "columns": dict, "cells": dict,
    "seeds": list[int],
    "baseline": str | None, "published": dict, "notes": list[str], "sort": str, "tune": dict,
}  # fmt: skip

PAPER = {"arxiv": str | None, "table": str, "runs": int, "source": str, "mark": get_type_hints(Paper)["mark"]}

METRIC = {**get_type_hints(Metric), "margin": float}

PUBLISHED = get_type_hints(Paper)

LINE = {"overrides": list[str], "as": str, "digests": dict}

COLUMN = {**LINE, "metric": dict}

TUNE = {"over": dict, "by": str}


def _spec(name: str, tree: Any) -> Spec:
    _conform(tree, KEYS, "the table", required=("title", "metric", "rows", "columns", "seeds"))
    paper, metric = tree.get("paper", {}), dict(tree["metric"])
    _conform(paper, PAPER, "paper")
    _conform(metric, METRIC, "metric", required=("key", "label", "direction", "margin"))
    margin = float(metric.pop("margin"))
    table_metric = Metric(**metric)
    rows = tuple(_line(label, value, "rows", LINE) for label, value in tree["rows"].items())
    columns = tuple(_line(label, value, "columns", COLUMN, table_metric) for label, value in tree["columns"].items())
    labels = {"rows": [line.label for line in rows], "columns": [line.label for line in columns]}
    seeds, baseline = tuple(tree["seeds"]), tree.get("baseline")
    if not rows or not columns or not seeds:
        raise ConfigError("a table has at least one row, one column and one seed")
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds: one is given twice: {list(seeds)}")
    if margin <= 0 or paper.get("runs", 1) < 1:
        raise ConfigError("metric.margin must be above 0, paper.runs at least 1")
    if baseline is not None and baseline not in labels["rows"]:
        raise ConfigError(f"baseline: there is no row {baseline!r}; {nearest(baseline, labels['rows'])}")
    if tree.get("sort") not in (None, *labels["columns"]):
        raise ConfigError(f"sort: there is no column {tree['sort']!r}; {nearest(tree['sort'], labels['columns'])}")
    own = {}
    for row, column, overrides in _cells(tree, "cells", labels):
        if not conforms(overrides, list[str]):
            raise ConfigError(f"cells.{row}.{column}: must be a list of overrides, not {overrides!r}")
        own[row, column] = _overrides(overrides, f"cells.{row}.{column}")
    published = {}
    common = {key: paper[key] for key in ("source", "mark") if key in paper}
    for row, column, value in _cells(tree, "published", labels):
        value = value if isinstance(value, Mapping) else {"value": value}
        _conform(value, PUBLISHED, f"published.{row}.{column}", required=("value",))
        published[row, column] = Paper(**{**common, **value})
    about = ", ".join([*([f"arXiv {paper['arxiv']}"] if paper.get("arxiv") else []), *([paper["table"]] if "table" in paper else [])])
    every, tune = _overrides(tree.get("common", ()), "common"), None
    if "tune" in tree:
        _conform(tree["tune"], TUNE, "tune", required=("over",))
        tune = read_tune(tree["tune"])
        _overrides([word for words in tune.tried() for word in words], "tune.over")
        lines = {f"rows.{line.label}": line.overrides for line in rows} | {f"columns.{line.label}": line.overrides for line in columns}
        for where, words in {**lines, **{f"cells.{row}.{column}": words for (row, column), words in own.items()}}.items():
            tune.refuse(words, where)
            if teacher_row(words) is not None:
                raise ConfigError(f"{where}: {TEACHER}...: a tuned table has no row that is another's teacher; name a run with teacher=ID")
    return Spec(
        name, tree["title"], about, paper.get("runs", 1), table_metric, margin, every, rows, columns, own,
        seeds, baseline, published, tuple(tree.get("notes", ())), tree.get("sort"), tune,
    )  # fmt: skip


def _cells(tree: Mapping[str, Any], key: str, labels: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, str, Any]]:
    """`key: {row: {column: value}}` of a table as (row, column, value), held against its labels."""
    for row, columns in tree.get(key, {}).items():
        _known(row, labels["rows"], key, "row")
        if not isinstance(columns, Mapping):
            raise ConfigError(f"{key}.{row}: must be columns with values, not {columns!r}")
        for column, value in columns.items():
            _known(column, labels["columns"], f"{key}.{row}", "column")
            yield row, column, value


def _line(label: Any, value: Any, kind: str, known: Mapping[str, Any], metric: Metric | None = None) -> Line:
    """metric: the table's, of which a line's own changes some keys."""
    where = f"{kind}.{label}"
    tree = value if isinstance(value, Mapping) else {"overrides": value or []}
    _conform(tree, known, where)
    own = tree.get("metric")
    if own is not None:
        _conform(own, get_type_hints(Metric), f"{where}.metric")
    changed = dataclasses.replace(metric, **own) if own else None
    return Line(str(label), _overrides(tree.get("overrides", ()), where), tree.get("as", str(label)), tree.get("digests", {}), changed)


def _overrides(words: Sequence[str], where: str) -> tuple[str, ...]:
    for text in words:
        if key_of(text) == "seed" or key_of(text).startswith("paths") or "=" not in text:
            raise ConfigError(f"{where}: {text!r} is no override of a cell; seeds and outputs are the table's")
        if permits(text):
            remedy = f"add {text.lstrip('+')} to this command if you trust it" if key_of(text) in FOREIGN else "leave it out"
            raise ConfigError(f"{where}: {text!r}: a table may not say whose code runs or where configs are; {remedy}")
    return tuple(words)


def _conform(tree: Any, known: Mapping[str, Any], where: str, *, required: Sequence[str] = ()) -> None:
    if not isinstance(tree, Mapping):
        raise ConfigError(f"{where}: must be keys with values, not {tree!r}")
    for key, value in tree.items():
        _known(key, list(known), where, "key")
        if not conforms(value, known[key]):
            raise ConfigError(f"{where}: {key}={value}: must be {describe(known[key])}")
    for key in required:
        if key not in tree:
            raise ConfigError(f"{where}: {key} is missing")


def _known(word: Any, names: Sequence[str], where: str, kind: str) -> None:
    if word not in names:
        raise ConfigError(f"{where}: unknown {kind} {word!r}; {nearest(str(word), names)}")


def departures(plan: Plan, base: Plan) -> list[str]:
    """Dotted keys in which two plans of one cell differ, without those that change nothing, and without COMPUTED.

    A key that only one of them has (another data set's own) counts where it is not at its default.
    """
    ignored = (*plan.ignored, *COMPUTED, "seed", "data.seed")
    mine, theirs, chosen = _leaves(plan.full), _leaves(base.full), {**_leaves(plan.short), **_leaves(base.short)}
    return [
        key
        for key in dict.fromkeys([*mine, *theirs])
        if mine.get(key, ...) != theirs.get(key, ...)
        and ((key in mine and key in theirs) or key in chosen)
        and not any(key == name or key.startswith(name + ".") for name in ignored)
    ]


def _leaves(tree: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    found = {}
    for key, value in tree.items():
        path = f"{where}.{key}" if where else str(key)
        if isinstance(value, Mapping) and value:
            found |= _leaves(value, path)
        else:
            found[path] = list(value) if isinstance(value, tuple) else value
    return found


@dataclass(frozen=True)
class Wanted:
    """One cell and its runs to be: a plan a seed (in a tuned table several, seed by seed), and the settings in which they depart from the
    paper's."""

    row: Line
    column: Line
    plans: tuple[Plan, ...]
    departs: tuple[str, ...]
