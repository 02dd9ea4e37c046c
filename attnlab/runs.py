"""`python -m attnlab.runs [list|show|diff|prune] ...`: the runs that are there. Starts nothing; only prune yes=true removes."""

import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnlab.config.groups import GROUPS
from attnlab.config.result import BROKEN, FAILED, FINISHED, INTERRUPTED, RUNNING, read_result
from attnlab.records.query import FILTER, Filter, StoredRun, find_run, flatten, is_number, ordered, parse_filters, read_runs, shown, split
from attnlab.records.record import Record, read_history
from attnlab.terminal import console, one_line, visible

HELP = f"""{__doc__}

  list [key=value ...] [sort=KEY] [limit=20]   all runs, the newest first; the word list may be left out
  show RUN                                     one run: its command, metrics, data, versions, error
  diff RUN RUN                                 what two runs differ in: configuration, metrics, versions
  prune [key=value ...] [yes=true]             remove failed runs; without yes=true it only lists them

  RUN          its folder, its run_id, or the first digits of its address (3fa9)
  key=value    runs that have it. Keys: any of the configuration (seed, model.width, attention.rect.at), a group (model=resnet18,
               attention=rect, regularizer=none), a metric (test/acc), or status, run_id, device, epochs, seconds, parameters.
               Globs and lists: run_id='digits*' seed=0,1,2. Also !=, <, <=, >, >=: 'test/acc>0.9' 'trainer.max_epochs>=100'
  sort=KEY     the best first where KEY is a metric, else the largest; sort=-KEY turns it round. limit=0 shows all
  prune        status=failed unless status=interrupted or status=broken is given; never a finished or a running one
  paths.outputs=DIR   where to look (default: outputs)
"""
ACTIONS = ("list", "show", "diff", "prune")


def metric(value: Any) -> str:
    return f"{value:.4f}" if is_number(value) else shown(value)


def epochs(run: StoredRun) -> str:
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
    heads, rows = [*map(visible, heads)], [[*map(visible, row)] for row in rows]
    right = [*map(visible, right)]
    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False, header_style="bold")
        for head in heads:
            table.add_column(head, justify="right" if head in right else "left", overflow="fold")
        colours = {FINISHED: "green", FAILED: "red", BROKEN: "red", INTERRUPTED: "yellow", RUNNING: "cyan"}
        for row in rows:
            table.add_row(*(Text(cell, style=colours.get(cell.removesuffix(" !"), "")) for cell in row))
        Console().print(table)
        return
    lines = [list(heads), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for line in lines:
        cells = [cell.rjust(width) if head in right else cell.ljust(width) for cell, width, head in zip(line, widths, heads)]
        print("  ".join(cells).rstrip())


def list_runs(runs: Sequence[StoredRun], words: Sequence[str], sort: str | None, limit: int) -> None:
    filters = parse_filters(words, runs)
    chosen = ordered([run for run in runs if all(one.fits(run) for one in filters)], sort)
    asked = [one.key for one in filters] + ([sort.removeprefix("-")] if sort else [])
    keys = list(dict.fromkeys(key for key in ("test/acc", *asked) if key not in ("status", "run_id", "started", "seconds", "epochs")))
    heads = ["run", "status", "epochs", "time", "started", *keys]
    rows = []
    for run in chosen[: limit or None]:
        seconds = run.result.get("seconds")
        moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started)) if run.started else ""
        values = [
            ",".join(map(metric if key in run.metrics else shown, run.get(key)[: 1 if key in GROUPS and not GROUPS[key].several else None]))
            for key in keys
        ]
        rows.append(
            [
                run.run_id,
                f"{run.status} !" if run.warnings else run.status,
                epochs(run),
                clock(seconds) if is_number(seconds) else "",
                moment,
                *values,
            ]
        )
    if rows:
        print_table(heads, rows, right=("epochs", "time", *(key for key in keys if "/" in key)))
    hidden = len(chosen) - len(rows)
    counted = f"{len(chosen)} of {len(runs)} runs" + (f", {hidden} not shown (limit=0 shows all)" if hidden else "")
    noted = "; !: has warnings, see show" if any(run.warnings for run in chosen) else ""
    sys.stderr.write(f"{counted}{noted}\n")


def show_run(run: StoredRun) -> None:
    result = run.result
    print(visible(f"{run.run_id}  {run.status}"))
    data = {key: value for key, value in result.get("data", {}).items() if key != "classes"}
    lines = {
        "folder": str(run.folder),
        "command": result.get("command"),
        "trained by": result.get("trained_by"),
        "device": ", ".join(str(result[key]) for key in ("device", "precision") if key in result),
        "places": ", ".join(f"{place} ({how})" for place, how in result.get("places", {}).items()),
        "parameters": f"{result['parameters']:,}" if is_number(result.get("parameters")) else None,
        "epochs": result.get("epochs"),
        "time": clock(result["seconds"]) if is_number(result.get("seconds")) else None,
        "images/s": f"{result['images_per_second']:,.0f}" if is_number(result.get("images_per_second")) else None,
        "data": ", ".join(f"{key} {shown(value)}" for key, value in flatten(data)),
        "versions": ", ".join(f"{name} {version}" for name, version in result.get("versions", {}).items()),
        "git": ", ".join(f"{key} {shown(value)}" for key, value in (result.get("git") or {}).items()),
        "warnings": "; ".join(run.warnings),
        "error": run.error,
        "log": str(run.folder / "train.log") if run.error and (run.folder / "train.log").exists() else None,
    }
    for name, value in lines.items():
        if value not in (None, ""):
            print(visible(f"  {name:<10} {value}"))
    if run.metrics:
        width = max(map(len, run.metrics))
        for key, value in run.metrics.items():
            print(visible(f"  {key:<{width}}  {metric(value)}"))


def diff_runs(one: StoredRun, two: StoredRun) -> None:
    """Configuration, then results."""
    about = [{**run.leaves, **{f"versions.{key}": value for key, value in run.result.get("versions", {}).items()}} for run in (one, two)]
    for run, found in zip((one, two), about):
        found.update(
            {
                key: run.result.get(key)
                for key in ("status", "device", "device_kind", "precision", "threads")
                if key == "status" or key in run.result
            }
        )
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


def prune(runs: Sequence[StoredRun], words: Sequence[str], yes: bool) -> None:
    """Remove the failed runs that the filters choose, or list them."""
    removable = (FAILED, INTERRUPTED, BROKEN)
    filters = parse_filters(words, runs)
    wanted = [status for one in filters if one.key == "status" and one.sign == "=" for status in split(one.value)]
    if any(status not in removable for status in wanted):
        raise ValueError(f"status={','.join(wanted)}: prune removes {', '.join(removable)} runs and no others")
    if not wanted:
        filters.append(Filter("status", "=", FAILED))
    chosen = ordered([run for run in runs if run.status in removable and all(one.fits(run) for one in filters)], None)
    for run in chosen:
        print(visible(f"{run.folder}  {run.status}{': ' + run.error if run.error else ''}"))
        if run.folder.is_symlink():
            print(visible(f"{run.folder}  is a link to {run.folder.resolve()}: left alone, with what it leads to"))
        elif yes:
            with Record(run.folder).lock_if_free() as free:
                if not free or read_result(run.folder).status == FINISHED:
                    print(visible(f"{run.folder}  is at work, or finished meanwhile: left alone"))
                else:
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
