"""`python -m tests.mutate [FILES...]`: do the reference tests notice a wrong sign, axis, constant, a forgotten detach?

Each method file is mutated, one change at a time, and its own reference tests run on each mutant in a forked child. Survivors are listed
with line and change; those that no test can notice are explained in equivalent.toml. mutmut and cosmic-ray were looked at: mutmut calls
every function through a wrapper (*args, **kwargs), which breaks asking by name and torch.compile; cosmic-ray starts a process with
torch, 5 s, for each mutant.
"""

import argparse
import gc
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # forks stay safe

from tests import ROOT  # noqa: E402
from tests.mutate import runner, targets  # noqa: E402
from tests.mutate.mutations import Mutation, mutations  # noqa: E402

COUNTS = ("mutants", "killed", "timeout", "survived", "broken", "explained")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutate", description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="method files; all by default")
    parser.add_argument("--per-file", type=int, metavar="N", help="a random N of each file's mutants; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of that choice")
    parser.add_argument("--line", type=int, action="append", help="only mutants of this line")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--slow", type=float, default=runner.SLOW, metavar="S", help="leave out tests that take more CPU seconds (2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, after every file")
    parser.add_argument("--again", type=Path, metavar="FILE", help="run what survived in these results once more, and correct them")
    parser.add_argument("--list", action="store_true", help="files, their tests and how many mutants they have; runs nothing")
    options = parser.parse_args(arguments)
    runner.SLOW = options.slow
    before = {row["file"]: row for row in json.loads(options.again.read_text())} if options.again else {}
    files = [Path(file).resolve() for file in options.files or before] or targets.method_files()
    if missing := [str(file) for file in files if not file.is_file()]:
        parser.error(f"no such file: {missing[0]}")

    rows, found = [], {}
    for number, file in enumerate(files, 1):
        name = runner.relative(file)
        tree, every = mutations(file.read_text(), targets.yaml_defaults(file))
        found[name] = every
        if options.list:
            print(f"{name}  {len(every)} mutants  {' '.join(targets.nodes_of(file)) or 'NO TEST'}")
            continue
        row = run(file, tree, choose(every, name, before.get(name), options), options.jobs, f"{number}/{len(files)}")
        rows.append(corrected(before[name], row) if name in before else row)
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1))
    for entry in targets.stale(found):
        if entry["file"] in found:
            print(f"equivalent.toml: nothing is like this any more: {entry['file']}: {entry['line']}")
    if options.list:
        return 0
    print("\n" + table(rows))
    return int(share(rows) < 0.95)


def choose(every: list[Mutation], name: str, before: dict[str, Any] | None, options: argparse.Namespace) -> list[Mutation]:
    """Of a file's mutants those that are asked for."""
    chosen = [one for one in every if not options.line or one.line in options.line]
    if before is not None:
        survived = {(text, becomes) for _, text, becomes, _ in before["left"]}
        return [one for one in chosen if (one.before, one.after) in survived]
    if options.per_file is None or len(chosen) <= options.per_file:
        return chosen
    return sorted(random.Random(f"{options.seed} {name}").sample(chosen, options.per_file), key=lambda one: one.line)


def run(file: Path, tree: Any, chosen: list[Mutation], jobs: int, place: str) -> dict[str, Any]:
    name, began, tests = runner.relative(file), time.monotonic(), targets.nodes_of(file)
    row = {"file": name, **dict.fromkeys(COUNTS, 0), "mutants": len(chosen), "left": [], "tests": tests}
    rest = [one for one in chosen if not any(targets.explains(entry, name, one) for entry in targets.equivalent())]
    row["explained"] = len(chosen) - len(rest)
    ends: list[tuple[Mutation, str]] = []
    try:
        bench = runner.Bench(targets.module_of(file), file, tests) if rest and tests else None
    except RuntimeError as error:
        print(error, flush=True)
        return {**row, "broken": len(rest)}
    for end in bench.run(tree, rest, jobs) if bench else [(one, runner.SURVIVED) for one in rest]:
        ends.append(end)
        row[end[1]] += 1
        if sys.stderr.isatty():
            print(f"\r{place} {name} {len(ends)}/{len(rest)}", end="\033[K", file=sys.stderr, flush=True)
    row["left"] = sorted([one.line, one.before, one.after, end] for one, end in ends if end in (runner.SURVIVED, runner.BROKEN))
    counts = ", ".join(f"{row[key]} {key}" for key in COUNTS if row[key])
    print(f"{place} {name}: {counts or 'nothing'}, {time.monotonic() - began:.0f} s", flush=True)
    for line, text, becomes, end in row["left"]:
        print(f"    {end} {line}: {text}\n          becomes: {becomes}", flush=True)
    return row


def corrected(before: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """Earlier results with what became of their survivors; those that are mutants no more count no more."""
    gone = len(before["left"]) - row["mutants"]
    sums = {key: before[key] + row[key] for key in ("killed", "timeout", "explained")}
    return {**row, **sums, "mutants": before["mutants"] - gone}


def share(rows: list[dict[str, Any]]) -> float:
    """Of the mutants that are not explained, those that die; a timeout is a death."""
    dead = sum(row["killed"] + row["timeout"] for row in rows)
    return dead / max(1, sum(row["mutants"] - row["explained"] for row in rows))


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown; a timeout is a kill, and an explained mutant is neither killed nor alive."""
    lines = ["| file | mutants | killed | explained | survived |", "| --- | ---: | ---: | ---: | ---: |"]
    total = dict.fromkeys(("mutants", "killed", "explained", "survived"), 0)
    for row in rows:
        cells = {**row, "killed": row["killed"] + row["timeout"], "survived": row["survived"] + row["broken"]}
        total = {key: total[key] + cells[key] for key in total}
        lines.append(f"| {row['file']} | " + " | ".join(str(cells[key]) for key in total) + " |")
    lines.append("| all | " + " | ".join(str(value) for value in total.values()) + " |")
    return "\n".join([*lines, "", f"{total['killed']} of {total['mutants'] - total['explained']} die: {share(rows):.1%}"])


if __name__ == "__main__":
    os.chdir(ROOT)
    code = main()
    gc.unfreeze()  # else a library of torch's takes what it still holds for leaked, and says so
    sys.exit(code)
