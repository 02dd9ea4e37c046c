"""python -m attnlab.table table=NAME|[A,B,C] [action=show|plan|run] [format=text|md|csv|latex|html|plot|forest] [key=value ...]

Shows a paper's table beside what was measured here, lists the runs that are missing, or runs them.

  table=NAME               a file of configs/table, or a path ending in .yaml; several, as table=[A,B,C], one after another or in one page
  table.NAME.overrides=... of one table of several alone, in place of the word for all; also rows, columns, seeds
  action=show              what is there (the default)
  action=plan              what is missing, with commands and an estimate of the time from recorded runs
  action=run               run what is missing, then show; repeat it to go on after a stop
  format=text              text, md, csv (full precision), latex, html, plot or forest; else by the ending of out
  format=plot out=FILE.png the first column against each of the others, a point a row (also .pdf, .svg)
  format=forest out=FILE.png   every row's difference to the baseline, with its 95% interval
  details=[interval,p]     with format=latex: the 95% interval and the p of the paired difference, in a small line beneath each row
  out=FILE                 write there and not to standard output
  overrides=[a=b,c=d]      applied to every cell: another table, labelled as such
  rows=[A,B] columns=[C]   only these
  sort=COLUMN              the rows in the order of that column's means, the best first
  seeds=[0,1,2]            other seeds than the table's; also range(5)
  paths.outputs=DIR        where the runs are (outputs)
  wandb=true               log the table and its runs to W&B, offline where there are no credentials
  hydra.searchpath=[..] allow_targets=[..]   configs and code of somebody else, for every cell; a table cannot permit itself any
  hydra/launcher=NAME      with action=run: basic (one after another), local, joblib, dask, submitit_local, submitit_slurm;
  hydra.launcher.KEY=...   and its settings
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attnlab.config.completion import choices, completed
from attnlab.config.overrides import key_of, permits
from attnlab.config.targets import ConfigError
from attnlab.tables.request import ACTIONS, DETAILS, FORMATS, KEYS, PICTURES, Request, command_of, one_each, read_request
from attnlab.terminal import console, leave, message, tells_version

if TYPE_CHECKING:
    from attnlab.records.index import Records
    from attnlab.tables.model import Table


def main(words: Sequence[str]) -> int:
    """The command; its exit code: 1 where a run that was started is not finished."""
    from attnlab.tables.fill import fill
    from attnlab.tables.spec import read_spec
    from attnlab.tables.todo import log, plan_text, run, todo

    parts = one_each(words)
    requests = [read_request(part) for part in parts]
    for request in requests:
        _check_overrides(request)
        if request.format in PICTURES and len(requests) > 1:
            raise ConfigError(f"format={request.format}: is of one table; html, md, csv, latex and text take several")
    specs = [read_spec(one.table).only(one.rows, one.columns).sorted_by(one.sort).permitting(one.permissions) for one in requests]
    tables, plans, records, failed = [], [], None, 0
    for request, part, spec in zip(requests, parts, specs, strict=True):
        about = {"outputs": request.outputs, "overrides": request.overrides, "seeds": request.seeds, "command": command_of(part)}
        table, cells, records = fill(spec, **about, records=records)
        jobs = todo(table, cells)
        if request.action == "plan":
            plans.append(plan_text(table, jobs, records, outputs=request.outputs))
            continue
        if request.action == "run" and jobs:
            log.info("%s: %d runs to do", table.name, len(jobs))
            failed += run(jobs, outputs=request.outputs, launcher=[*request.permissions, *request.launcher])
            table, _, records = fill(spec, **about)
        elif request.action == "run":
            log.info("%s: nothing to do", table.name)
        if request.wandb:
            from attnlab.tables.views.wandb import log_table

            log_table(table, outputs=request.outputs)
        tables.append(table)
    if plans:
        return _give("\n".join(plans), requests[0].out)
    _show(tables, requests[0], records, command_of(words))
    return int(bool(failed))


def _check_overrides(request: Request) -> None:
    for word in request.overrides:
        if permits(word) and key_of(word) != "paths.outputs":
            raise ConfigError(f"overrides: {word!r} stands by itself: {word.lstrip('+')} on the command line")
        if "=" not in word or key_of(word) in ("seed", "paths.outputs"):
            raise ConfigError(f"overrides: {word!r} is no override of a cell; seeds=[...] and paths.outputs=DIR stand by themselves")


def _show(tables: "Sequence[Table]", request: Request, records: "Records", command: str) -> None:
    """command: that shows them all again."""
    if request.format in PICTURES:
        from attnlab.figures.forest import forest
        from attnlab.figures.tradeoff import tradeoff

        draw = {"plot": tradeoff, "forest": forest}[request.format]
        print(draw(tables[0], path=request.out), flush=True)
        return
    if request.format == "html":
        path = request.out or request.outputs / "tables" / f"{tables[0].name if len(tables) == 1 else 'results'}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        if len(tables) == 1:
            from attnlab.tables.views.html.page import write_html

            write_html(tables[0], path, outputs=request.outputs, read=records.result)
        else:
            from attnlab.tables.views.html.several import write_several

            write_several(tables, path, outputs=request.outputs, read=records.result, command=command)
        print(path, flush=True)
        return
    from attnlab.tables.views import latex as table_latex
    from attnlab.tables.views import text as table_text

    if request.format == "text":
        import shutil

        color = request.out is None and sys.stdout.isatty()
        width = shutil.get_terminal_size((100, 24)).columns
        texts = [table_text.to_text(table, width=width, color=color) for table in tables]
    elif request.format == "latex":
        texts = [table_latex.to_latex(table, details=request.details) for table in tables]
    else:
        texts = [{"md": table_text.to_markdown, "csv": table_text.to_csv}[request.format](table) for table in tables]
    if request.format == "csv":  # one list: a column names the table
        texts = [text if n == 0 else text.partition("\n")[2] for n, text in enumerate(texts)]
    _give(("" if request.format == "csv" else "\n").join(texts), request.out)


def _give(text: str, out: Path | None) -> int:
    """To the file, or to standard output."""
    if out:
        from attnlab.records.atomic import write_atomic

        print(write_atomic(out, text), flush=True)
    else:
        sys.stdout.write(text)
        sys.stdout.flush()
    return 0


def candidates(words: Sequence[str]) -> list[str]:
    """What may come next, for completion."""
    known = {"action": ACTIONS, "format": FORMATS, "details": DETAILS, "wandb": ("true", "false")}
    return [f"{key}=" for key in KEYS] + choices(["table"]) + [f"{key}={value}" for key, values in known.items() for value in values]


def cli() -> None:
    """A user's mistake ends in one line on stderr and exit code 1."""
    words = sys.argv[1:]
    if completed(words, "attnlab-table", candidates):
        return
    if not words or {"-h", "--help"} & set(words):
        from attnlab.tables.spec import table_names

        print(f"{__doc__}\nTables: {', '.join(table_names())}")
        return
    if tells_version(words):
        return
    console()
    try:
        code = main(words)
    except KeyboardInterrupt:
        leave("interrupted; the same command goes on with what is missing", code=130)
    except Exception as error:
        text = message(error)
        if text is None:  # our own mistake: show where
            raise
        leave(text)
    sys.exit(code)


if __name__ == "__main__":
    cli()
