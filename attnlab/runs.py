"""`python -m attnlab.runs [list|show|diff|push|prune] ...`: the runs that are there. Starts nothing; only prune yes=true removes."""

import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from attnlab.config.completion import choices, completed, run_ids
from attnlab.config.groups import GROUPS
from attnlab.config.result import BROKEN, FAILED, FINISHED, HALTED, INTERRUPTED, RUNNING, read_result
from attnlab.config.suggest import nearest
from attnlab.records.about import clock, diff_runs, epochs, metric, show_run
from attnlab.records.grouping import HEADS, hidden_keys, number_of, rows_of, word_of
from attnlab.records.query import (
    FILTER,
    Filter,
    StoredRun,
    find_run,
    is_number,
    known_key,
    ordered,
    parse_filters,
    read_runs,
    split,
)
from attnlab.records.record import Record
from attnlab.terminal import console, one_line, print_table, reader_left, tells_version, visible

HELP = f"""{__doc__}

  list [key=value ...] [sort=KEY] [limit=20]   all runs, the newest first; the word list may be left out
  by=KEY,KEY [metric=KEY] [plot=FILE.png] [key=value ...]   mean and sd over the finished runs that agree in these keys, the best first;
                                               as a picture: bars with runs as dots, lines where the first key is a number
  show RUN                                     one run: its command, metrics, data, versions, error, later evaluations
  diff RUN RUN                                 what two runs differ in: configuration, metrics, versions
  push RUN to=FOLDER [licence=apache-2.0] [figures=false]   its trained network for a model hub: safetensors, a model card, figures;
       to=hf://OWNER/NAME [private=false]      `attnlab.load("hf://OWNER/NAME")` and `load("FOLDER")` read it; docs/hub.md
  prune [key=value ...] [yes=true]             remove failed runs; without yes=true it only lists them

  RUN          its folder, its run_id, or the first digits of its address (3fa9); also what attnlab.evaluate was asked about
  key=value    runs that have it. Keys: any of the configuration (seed, model.width, attention.rect.at), a group (model=resnet18,
               attention=rect, regularizer=none), a metric (test/acc), or status, run_id, device, epochs, seconds, parameters.
               Globs and lists: run_id='digits*' seed=0,1,2. Also !=, <, <=, >, >=: 'test/acc>0.9' 'trainer.max_epochs>=100'
  sort=KEY     the best first where KEY is a metric, else the largest; sort=-KEY turns it round. limit=0 shows all
  prune        status=failed unless status=interrupted, status=halted or status=broken is given; never a finished or a running one
  paths.outputs=DIR   where to look (default: outputs)
"""
COLOURS = {FINISHED: "green", FAILED: "red", BROKEN: "red", INTERRUPTED: "yellow", HALTED: "yellow", RUNNING: "cyan"}  # of a status
ACTIONS = ("list", "show", "diff", "push", "prune")
OPTIONS = {
    "list": ("sort", "limit", "by", "metric", "plot"),
    "push": ("to", "licence", "figures", "private", "allow_targets"),
    "prune": ("yes",),
}


def list_runs(runs: Sequence[StoredRun], words: Sequence[str], sort: str | None, limit: int) -> None:
    filters = parse_filters(words, runs)
    chosen = ordered([run for run in runs if all(one.fits(run) for one in filters)], sort)
    asked = [one.key for one in filters] + ([sort.removeprefix("-")] if sort else [])
    own = ("status", "run_id", "started", "seconds", "epochs")
    keys = list(dict.fromkeys(key for key in ("attention", "seed", "test/acc", *asked) if key not in own))
    heads = ["run", "status", "epochs", "time", "started", *keys]
    rows = []
    for run in chosen[: limit or None]:
        seconds = run.result.get("seconds")
        moment = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started)) if run.started else ""
        status = f"{run.status} !" if run.warnings else run.status
        values = [metric(number_of(run, key)) if key in run.metrics else word_of(run, key, none="") for key in keys]
        rows.append([run.run_id, status, epochs(run), clock(seconds) if is_number(seconds) else "", moment, *values])
    if rows:
        right = ("epochs", "time", "seed", *(key for key in keys if "/" in key))
        print_table(heads, rows, right=right, colours=COLOURS)
    hidden = len(chosen) - len(rows)
    counted = f"{len(chosen)} of {len(runs)} runs" + (f", {hidden} not shown (limit=0 shows all)" if hidden else "")
    noted = "; !: has warnings, see show" if any(run.warnings for run in chosen) else ""
    sys.stderr.write(f"{counted}{noted}\n")


def group_runs(runs: Sequence[StoredRun], words: Sequence[str], *, by: Sequence[str], metric: str, plot: str | None) -> None:
    """A row for the runs that agree in `by`, on stdout and as a picture; what was left out or mixed is said on stderr."""
    filters = parse_filters(words, runs)
    for key in (*by, metric):
        known_key(key, runs)
    done = [run for run in runs if run.status == FINISHED and all(one.fits(run) for one in filters)]
    chosen = [run for run in done if number_of(run, metric) is not None]
    if not chosen:
        raise ValueError(f"metric={metric}: none of the {len(done)} finished runs has it; repeat without it for test/acc")
    found = rows_of([([word_of(run, key) for key in by], number_of(run, metric)) for run in chosen], metric=metric)
    print_table([*by, *HEADS], [row.cells for row in found], right=HEADS)
    notes = [f"{metric} of {len(chosen)} runs" + f", {len(done) - len(chosen)} more have none" * (len(done) > len(chosen))]
    if mixed := hidden_keys(chosen, by, metric):
        notes.append(f"runs of a row differ in {', '.join(mixed[:5])}{', ...' * (len(mixed) > 5)}: add them to by=, or choose by key=value")
    if plot:
        from attnlab.figures.groups import grouped_runs

        order = {word: n for n, word in enumerate(dict.fromkeys(word for row in found for word in row.key))}
        lines = [(row.key, row.values) for row in sorted(found, key=lambda row: [order[word] for word in row.key])]
        notes.append(str(grouped_runs(lines, keys=by, metric=metric, path=Path(plot))))
    sys.stderr.write("\n".join(notes) + "\n")


def prune(runs: Sequence[StoredRun], words: Sequence[str], yes: bool) -> None:
    """Remove the failed runs that the filters choose, or list them."""
    removable = (FAILED, INTERRUPTED, HALTED, BROKEN)
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


def push_run(run: StoredRun, given: Mapping[str, str], runs: Sequence[StoredRun]) -> None:
    """The folder's path or the repository's address goes to stdout."""
    if "to" not in given:
        raise ValueError("push: say where: to=FOLDER, or to=hf://OWNER/NAME")
    from attnlab.hub.push import push

    print(
        push(
            run,
            given["to"],
            runs=runs,
            licence=given.get("licence"),
            figures=yes_or_no(given, "figures", True),
            private=yes_or_no(given, "private", True),
            allow_targets=[name for name in given.get("allow_targets", "").strip("[]").split(",") if name],
        )
    )


def yes_or_no(given: Mapping[str, str], key: str, usual: bool) -> bool:
    word = given.get(key, str(usual).lower())
    if word not in ("true", "false"):
        raise ValueError(f"{key}={word}: must be true or false")
    return word == "true"


def check_plot(plot: str | None, by: Sequence[str]) -> None:
    if plot and Path(plot).suffix not in (".png", ".pdf", ".svg"):
        raise ValueError(f"plot={plot}: must end in .png, .pdf or .svg")
    if plot and len(by) > 2:
        raise ValueError(f"plot={plot}: draws one key or two, and by={','.join(by)} has {len(by)}")


def run_command(words: Sequence[str]) -> None:
    action, rest = (words[0], list(words[1:])) if words and words[0] in ACTIONS else ("list", list(words))
    given: dict[str, str] = {}
    for key in ("paths.outputs", *OPTIONS.get(action, ())):
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
        if "by" in given:
            by, key = given["by"].split(","), given.get("metric", "test/acc")
            check_plot(given.get("plot"), by)
            group_runs(runs, rest, by=by, metric=key, plot=given.get("plot"))
        elif alone := [key for key in ("metric", "plot") if key in given]:
            raise ValueError(f"{alone[0]}={given[alone[0]]}: goes with by=KEY, such as by=attention,data")
        else:
            list_runs(runs, rest, given.get("sort"), int(limit))
    elif action == "prune":
        prune(runs, rest, yes_or_no(given, "yes", False))
    else:
        count = {"show": 1, "push": 1, "diff": 2}[action]
        for word in [word for word in rest if FILTER.fullmatch(word)]:
            known = ["paths.outputs", *OPTIONS.get(action, ())]
            raise ValueError(f"{word}: {action} has no such option; {nearest(word.partition('=')[0], known)}")
        if len(rest) != count:
            raise ValueError(f"{action} takes {count} run{'s' if count > 1 else ''}, got {len(rest)}")
        found = [find_run(word, runs) for word in rest]
        if action == "push":
            push_run(*found, given, runs)
        else:
            show_run(*found) if action == "show" else diff_runs(*found)


def candidates(words: Sequence[str]) -> list[str]:
    """What may come next, for completion."""
    action = words[0] if words and words[0] in ACTIONS else ""
    options = [f"{key}=" for key in (*OPTIONS.get(action or "list", ()), "paths.outputs")]
    if action in ("show", "diff", "push"):
        return [*run_ids(words), *options]
    return [*(() if words else ACTIONS), *options, *(f"status={status}" for status in COLOURS), *choices(GROUPS)]


def main() -> None:
    words = sys.argv[1:]
    if completed(words, "attnlab-runs", candidates):
        return
    if {"-h", "--help"} & set(words):
        print(HELP)
        return
    if tells_version(words):
        return
    console()
    with one_line():
        try:
            run_command(words)
            sys.stdout.flush()
        except BrokenPipeError:
            reader_left()


if __name__ == "__main__":
    main()
