"""`python -m attnlab.runs [list|show|diff|prune] ...`: the runs that are there. Starts nothing; only prune yes=true removes."""

import fnmatch
import functools
import math
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnlab.config import FLAT, KEYED
from attnlab.names import nearest
from attnlab.record import FAILED, FINISHED, INTERRUPTED, RUNNING, read_history
from attnlab.table_records import BROKEN, MISSING, Found, Records, is_locked
from attnlab.terminal import console, one_line

HELP = f"""{__doc__}

  list [key=value ...] [sort=KEY] [limit=20]   all runs, the newest first; the word list may be left out
  show RUN                                     one run: its command, metrics, data, versions, error
  diff RUN RUN                                 what two runs differ in: configuration, metrics, versions
  prune [key=value ...] [yes=true]             remove failed runs; without yes=true it only says which

  RUN          its folder, its run_id, or the first digits of its address (3fa9)
  key=value    runs that have it. Keys: any of the configuration (seed, model.width, attention.rect.at), a group (model=resnet18,
               attention=rect, regularizer=none), a metric (test/acc), or status, run_id, device, epochs, seconds, parameters.
               Globs and lists: run_id='digits*' seed=0,1,2. Also !=, <, <=, >, >=: 'test/acc>0.9' 'trainer.max_epochs>=100'
  sort=KEY     the best first where KEY is a metric, else the largest; sort=-KEY turns it round. limit=0 shows all
  prune        status=failed unless you say status=interrupted or status=broken; never a finished or a running one
  paths.outputs=DIR   where to look (default: outputs)
"""
ACTIONS = ("list", "show", "diff", "prune")
FIELDS = ("status", "run_id", "device", "epochs", "seconds", "parameters", "images_per_second", "started", "finished", "precision", "stage")
LESS_IS_BETTER = ("loss", "nll", "ece", "brier", "fpr95", "fpr95_id", "error")
FILTER = re.compile(r"(?P<key>[^=<>!]+?)(?P<sign>!=|<=|>=|=|<|>)(?P<value>.*)")
RUN = re.compile(r".+-[0-9a-f]{8}")


class Run:
    """One record as a reader sees it; `get` finds a key of its fields, its metrics or its configuration."""

    def __init__(self, found: Found) -> None:
        self.folder, self.result, self.status, self.error = found.folder, found.result, found.status, found.error
        if self.status != FINISHED and is_locked(found.folder.parent / ".locks" / f"{found.folder.name.rpartition('-')[2]}.lock"):
            self.status = RUNNING  # also one that failed or was interrupted before and is at work again
        elif self.status == MISSING:
            self.status = INTERRUPTED  # before its first word
        self.run_id = found.folder.name
        self.config = self.result.get("config") or {}
        self.metrics = self.result.get("metrics") or {}

    @functools.cached_property
    def leaves(self) -> dict[str, Any]:
        """The configuration by dotted keys."""
        return dict(flatten(self.config))

    @property
    def address(self) -> str:
        return self.run_id.rpartition("-")[2]

    def get(self, key: str) -> list[Any]:
        """The values that a key can be said to have; a group has several names: that of its file, of its module, of its class."""
        if key in ("status", "run_id"):
            return [getattr(self, key)]
        if key in self.metrics:
            return [self.metrics[key]]
        if key in KEYED and key in self.config:
            return list(self.config[key]) or ["none"]
        if key in FLAT and key in self.config:
            return self.names(key)
        if key in self.leaves:
            return [self.leaves[key]]
        if key in FIELDS and key in self.result:
            return [self.result[key]]
        return []

    def names(self, group: str) -> list[str]:
        node = self.config[group]
        chosen = [text.partition("=")[2] for text in self.result.get("overrides", []) if text.partition("=")[0].lstrip("+") == group]
        target = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
        return [*chosen, *target.split(".")[-2:]] if chosen or target else ["none"]

    @property
    def started(self) -> float:
        value = self.result.get("started")
        return value if isinstance(value, int | float) else 0.0


def flatten(node: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a configuration with their dotted keys."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from flatten(value, f"{where}.{key}" if where else str(key))
    elif where:
        yield where, node


def read_runs(outputs: Path) -> list[Run]:
    return [Run(found) for found in Records(outputs).all() if found.folder and RUN.fullmatch(found.folder.name)]


# ---- which runs ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Filter:
    key: str
    sign: str
    value: str

    def fits(self, run: Run) -> bool:
        found = run.get(self.key)
        if self.sign in ("=", "!="):
            hit = any(same(value, text) for value in found for text in split(self.value))
            return hit == (self.sign == "=")
        low = float(self.value)
        compare = {"<": float.__lt__, "<=": float.__le__, ">": float.__gt__, ">=": float.__ge__}[self.sign]
        return any(is_number(value) and compare(float(value), low) for value in found)


def split(text: str) -> list[str]:
    """`0,1,2` is any of them; a list in brackets is one value."""
    return [text] if text.startswith("[") else text.split(",")


def same(value: Any, text: str) -> bool:
    if is_number(value):
        try:
            return math.isclose(value, float(text), rel_tol=1e-9)
        except ValueError:
            return False
    return fnmatch.fnmatchcase(shown(value).replace(" ", ""), text.replace(" ", ""))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse_filters(words: Sequence[str], runs: Sequence[Run]) -> list[Filter]:
    """ValueError for what is no filter, or names a key that no run has."""
    found = []
    for word in words:
        parts = FILTER.fullmatch(word)
        if not parts:
            raise ValueError(f"{word}: is no filter; write key=value, or one of != < <= > >= for = (in quotes)")
        one = Filter(parts["key"].lstrip("+"), parts["sign"], parts["value"])
        if one.sign not in ("=", "!="):
            try:
                float(one.value)
            except ValueError:
                raise ValueError(f"{word}: {one.sign} needs a number") from None
        known_key(one.key, runs)
        found.append(one)
    return found


def known_key(key: str, runs: Sequence[Run]) -> None:
    if runs and key not in FIELDS and not any(run.get(key) for run in runs):
        names = {name: None for run in runs for name in (*run.metrics, *run.config, *run.leaves)}
        raise ValueError(f"no run has the key {key}; {nearest(key, [*FIELDS, *names])}")


def ordered(runs: Sequence[Run], key: str | None) -> list[Run]:
    """By a key, best or largest first, runs without it last; by default the newest first."""
    if key is None:
        return sorted(runs, key=lambda run: (-run.started, run.run_id))
    turned, name = key.startswith("-"), key.removeprefix("-")
    known_key(name, runs)
    small = name.rpartition("/")[2] in LESS_IS_BETTER or "/loss" in name
    small = small != turned

    def place(run: Run) -> tuple:
        values = [value for value in run.get(name)[:1] if value is not None]
        if not values:
            return (2, 0, run.run_id)
        if is_number(values[0]):
            return (0, values[0] if small else -values[0], run.run_id)
        return (1, shown(values[0]), run.run_id)

    return sorted(runs, key=place)


def find_run(word: str, runs: Sequence[Run]) -> Run:
    """The run that a folder, a run_id or the beginning of an address names."""
    name = Path(word).name if Path(word).is_dir() else word.rstrip("/")
    hits = [run for run in runs if run.run_id == name] or [run for run in runs if run.address.startswith(name)]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise ValueError(f"{word}: fits {len(hits)} runs ({', '.join(run.run_id for run in hits[:3])}, ...); give more of the address")
    close = nearest(word, [run.run_id for run in runs]) if runs else "there is none yet"
    raise ValueError(f"{word}: there is no such run; {close}")


# ---- what is shown -------------------------------------------------------------------------------------------------------------------


def shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return str(value)


def metric(value: Any) -> str:
    return f"{value:.4f}" if is_number(value) else shown(value)


def epochs(run: Run) -> str:
    """How many there were; of a run that has not come through training, how many of how many."""
    if "epochs" in run.result:
        return str(run.result["epochs"])
    total = run.leaves.get("trainer.max_epochs")
    return f"{len(read_history(run.folder / 'metrics.csv'))}/{total}" if total else ""


def clock(seconds: float) -> str:
    seconds = round(seconds)
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """With colours in a terminal; in a pipe plain columns, as wide as they need."""
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for head in heads:
            table.add_column(head, justify="right" if head in right else "left", overflow="fold")
        colours = {FINISHED: "green", FAILED: "red", BROKEN: "red", INTERRUPTED: "yellow", RUNNING: "cyan"}
        for row in rows:
            table.add_row(*(Text(cell, style=colours.get(cell, "")) for cell in row))
        Console().print(table)
        return
    lines = [list(heads), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        cells = [cell.rjust(width) if head in right else cell.ljust(width) for cell, width, head in zip(line, widths, heads)]
        print("  ".join(cells).rstrip())


def list_runs(runs: Sequence[Run], words: Sequence[str], sort: str | None, limit: int) -> None:
    filters = parse_filters(words, runs)
    chosen = ordered([run for run in runs if all(one.fits(run) for one in filters)], sort)
    asked = [one.key for one in filters] + ([sort.removeprefix("-")] if sort else [])
    keys = list(dict.fromkeys(key for key in ("test/acc", *asked) if key not in ("status", "run_id", "started", "seconds", "epochs")))
    heads = ["run", "status", "epochs", "time", "started", *keys]
    rows = []
    for run in chosen[: limit or None]:
        seconds = run.result.get("seconds")
        moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started)) if run.started else ""
        values = [",".join(map(metric if key in run.metrics else shown, run.get(key)[: 1 if key in FLAT else None])) for key in keys]
        rows.append([run.run_id, run.status, epochs(run), clock(seconds) if is_number(seconds) else "", moment, *values])
    if rows:
        print_table(heads, rows, right=("epochs", "time", *(key for key in keys if "/" in key)))
    hidden = len(chosen) - len(rows)
    counted = f"{len(chosen)} of {len(runs)} runs" + (f", {hidden} not shown (limit=0 shows all)" if hidden else "")
    sys.stderr.write(f"{counted}\n")


def show_run(run: Run) -> None:
    result = run.result
    print(f"{run.run_id}  {run.status}")
    data = {key: value for key, value in result.get("data", {}).items() if key != "classes"}
    lines = {
        "folder": str(run.folder),
        "command": result.get("command"),
        "trained by": result.get("trained_by"),
        "device": result.get("device"),
        "places": ", ".join(f"{place} ({how})" for place, how in result.get("places", {}).items()),
        "parameters": f"{result['parameters']:,}" if is_number(result.get("parameters")) else None,
        "epochs": result.get("epochs"),
        "time": clock(result["seconds"]) if is_number(result.get("seconds")) else None,
        "images/s": f"{result['images_per_second']:,.0f}" if is_number(result.get("images_per_second")) else None,
        "data": ", ".join(f"{key} {shown(value)}" for key, value in flatten(data)),
        "versions": ", ".join(f"{name} {version}" for name, version in result.get("versions", {}).items()),
        "git": ", ".join(f"{key} {shown(value)}" for key, value in (result.get("git") or {}).items()),
        "error": run.error,
        "log": str(run.folder / "train.log") if run.error and (run.folder / "train.log").exists() else None,
    }
    for name, value in lines.items():
        if value not in (None, ""):
            print(f"  {name:<10} {value}")
    if run.metrics:
        width = max(map(len, run.metrics))
        for key, value in run.metrics.items():
            print(f"  {key:<{width}}  {metric(value)}")


def diff_runs(one: Run, two: Run) -> None:
    """Configuration, then results."""
    about = [{**run.leaves, **{f"versions.{key}": value for key, value in run.result.get("versions", {}).items()}} for run in (one, two)]
    for run, found in zip((one, two), about):
        found.update({key: run.result.get(key) for key in ("status", "device", "precision") if key == "status" or key in run.result})
        found["status"] = run.status
        found |= {f"data.digests.{key}": value for key, value in flatten(run.result.get("data", {}).get("digests", {}))}
    keys = [key for key in {**about[0], **about[1]} if about[0].get(key, ...) != about[1].get(key, ...)]
    rows = [[key, *(shown(found[key]) if key in found else "-" for found in about)] for key in keys]
    print_table(["", one.run_id, two.run_id], rows or [["the same configuration", "", ""]])
    rows = []
    for key in {**one.metrics, **two.metrics}:
        left, right = one.metrics.get(key), two.metrics.get(key)
        both = is_number(left) and is_number(right)
        rows.append([key, *("-" if value is None else metric(value) for value in (left, right)), f"{right - left:+.4f}" if both else ""])
    if rows:
        print()
        print_table(["metric", one.run_id, two.run_id, "difference"], rows, right=(one.run_id, two.run_id, "difference"))


def prune(runs: Sequence[Run], words: Sequence[str], yes: bool) -> None:
    """Remove the failed runs that the filters choose, or say which."""
    removable = (FAILED, INTERRUPTED, BROKEN)
    filters = parse_filters(words, runs)
    wanted = [status for one in filters if one.key == "status" and one.sign == "=" for status in split(one.value)]
    if any(status not in removable for status in wanted):
        raise ValueError(f"status={','.join(wanted)}: prune removes {', '.join(removable)} runs and no others")
    if not wanted:
        filters.append(Filter("status", "=", FAILED))
    chosen = ordered([run for run in runs if run.status in removable and all(one.fits(run) for one in filters)], None)
    for run in chosen:
        print(f"{run.folder}  {run.status}{': ' + run.error if run.error else ''}")
        if yes:
            shutil.rmtree(run.folder)
    what = "removed" if yes else "would be removed; yes=true removes them"
    sys.stderr.write(f"{len(chosen)} of {len(runs)} runs {what if chosen else 'fit; nothing to remove'}\n")


def run_command(words: Sequence[str]) -> None:
    action, rest = (words[0], list(words[1:])) if words and words[0] in ACTIONS else ("list", list(words))
    given: dict[str, str] = {}
    for key in ("paths.outputs", *{"list": ("sort", "limit"), "prune": ("yes",)}.get(action, ())):
        for word in [word for word in rest if word.startswith(f"{key}=")]:
            rest.remove(word)
            given[key] = word.partition("=")[2]
    outputs = Path(given.get("paths.outputs", "outputs"))
    if not outputs.is_dir() and "paths.outputs" in given:
        raise ValueError(f"paths.outputs={outputs}: there is no such folder")
    runs = read_runs(outputs)
    if action == "list":
        limit = given.get("limit", "20")
        if not limit.isdigit():
            raise ValueError(f"limit={limit}: must be a whole number, 0 for all")
        if rest and not FILTER.fullmatch(rest[0]):
            raise ValueError(f"{rest[0]}: is neither a filter (key=value) nor one of {', '.join(ACTIONS)}")
        list_runs(runs, rest, given.get("sort"), int(limit))
    elif action == "prune":
        if given.get("yes", "false") not in ("true", "false"):
            raise ValueError(f"yes={given['yes']}: must be true or false")
        prune(runs, rest, given.get("yes") == "true")
    else:
        count = {"show": 1, "diff": 2}[action]
        if len(rest) != count:
            raise ValueError(f"{action} takes {count} run{'s' if count > 1 else ''}, got {len(rest)}")
        found = [find_run(word, runs) for word in rest]
        show_run(*found) if action == "show" else diff_runs(*found)


def main() -> None:
    words = sys.argv[1:]
    if {"-h", "--help"} & set(words):
        print(HELP)
        return
    console()
    with one_line():
        try:
            run_command(words)
            sys.stdout.flush()
        except BrokenPipeError:  # the reader of our output left
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)


if __name__ == "__main__":
    main()
