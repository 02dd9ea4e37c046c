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
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, after every file")
    parser.add_argument("--list", action="store_true", help="files, their tests and how many mutants they have; runs nothing")
    options = parser.parse_args(arguments)
    files = [Path(file).resolve() for file in options.files] or targets.method_files()
    if missing := [str(file) for file in files if not file.is_file()]:
        parser.error(f"no such file: {missing[0]}")

    rows, found = [], {}
    for number, file in enumerate(files, 1):
        tree, every = mutations(file.read_text(), targets.yaml_defaults(file))
        found[runner.relative(file)] = every
        tests = targets.nodes_of(file)
        if options.list:
            print(f"{runner.relative(file)}  {len(every)} mutants  {' '.join(tests) or 'NO TEST'}")
            continue
        chosen = [one for one in every if not options.line or one.line in options.line]
        if options.per_file is not None and len(chosen) > options.per_file:
            chosen = random.Random(f"{options.seed} {runner.relative(file)}").sample(chosen, options.per_file)
            chosen.sort(key=lambda mutation: mutation.line)
        rows.append(row(file, tree, chosen, tests, options.jobs, f"{number}/{len(files)}"))
        if options.json:
            options.json.write_text(json.dumps(rows, indent=1))
    for entry in targets.stale(found):
        if entry["file"] in found:
            print(f"equivalent.toml: nothing is like this any more: {entry['file']}: {entry['line']}")
    if not options.list:
        print("\n" + table(rows))
    return 0


def row(file: Path, tree: Any, chosen: list[Mutation], tests: list[str], jobs: int, place: str) -> dict[str, Any]:
    name, began = runner.relative(file), time.monotonic()
    explained = [one for one in chosen if any(targets.explains(entry, name, one) for entry in targets.equivalent())]
    rest = [one for one in chosen if one not in explained]
    ends: list[tuple[Mutation, str]] = []
    if rest and tests:
        try:
            for end in runner.Bench(targets.module_of(file), file, tests).run(tree, rest, jobs):
                ends.append(end)
                if sys.stderr.isatty():
                    print(f"\r{place} {name} {len(ends)}/{len(rest)}", end="\033[K", file=sys.stderr, flush=True)
        except RuntimeError as error:
            print(error, flush=True)
            return {"file": name, **dict.fromkeys(COUNTS, 0), "mutants": len(chosen), "broken": len(chosen), "left": [], "tests": tests}
    elif rest:
        ends = [(one, runner.SURVIVED) for one in rest]
    counts = {status: sum(end == status for _, end in ends) for status in (runner.KILLED, runner.TIMEOUT, runner.SURVIVED, runner.BROKEN)}
    left = sorted((one.line, one.before, one.after, end) for one, end in ends if end in (runner.SURVIVED, runner.BROKEN))
    print(f"{place} {name}: {len(chosen)} mutants, {counts}, {len(explained)} explained, {time.monotonic() - began:.0f} s", flush=True)
    for line, before, after, end in left:
        print(f"    {end} {line}: {before}\n          becomes: {after}", flush=True)
    return {"file": name, "mutants": len(chosen), **counts, "explained": len(explained), "left": left, "tests": tests}


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown; a timeout is a kill, and an explained mutant is neither killed nor alive."""
    lines = ["| file | mutants | killed | explained | survived |", "| --- | ---: | ---: | ---: | ---: |"]
    total = dict.fromkeys(("mutants", "killed", "explained", "survived"), 0)
    for one in rows:
        cells = {**one, "killed": one["killed"] + one["timeout"], "survived": one["survived"] + one["broken"]}
        total = {key: total[key] + cells[key] for key in total}
        lines.append(f"| {one['file']} | " + " | ".join(str(cells[key]) for key in total) + " |")
    lines.append("| all | " + " | ".join(str(value) for value in total.values()) + " |")
    counted = total["mutants"] - total["explained"]
    return "\n".join([*lines, "", f"{total['killed']} of {counted} die: {total['killed'] / max(1, counted):.1%}"])


if __name__ == "__main__":
    os.chdir(ROOT)
    code = main()
    gc.unfreeze()  # else a library of torch's takes what it still holds for leaked, and says so
    sys.exit(code)
