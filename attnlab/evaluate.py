"""`python -m attnlab.evaluate run=FOLDER [ood=[...]] [data.ood=[...]] [data...]`: test a finished run again, without training.

Tests, OOD heads and localisation of the run's own network, with other heads or on other data of the same shape and classes. What comes
out is written to FOLDER/evaluations/<address>/result.json; the run's own record is not touched.
"""

import sys
from pathlib import Path
from typing import Any

from attnlab.config import FLAT, KEYED, Plan, compose
from attnlab.terminal import console, leave, one_line

FREE = ("data", "ood", "trainer", "logger", "paths", "name", "force", "check", "objective")
HELP = f"""{__doc__}
  run=FOLDER        the folder of a finished run, as printed by attnlab.train
  ood=[msp,knn]     other heads;  data.ood=[mnist]  other OOD sets;  data=parquet data.path=FOLDER  another test set
  trainer=cpu       another device
Everything else is the run's own configuration.
"""


def plan_of(folder: Path, overrides: list[str]) -> tuple[Plan, dict[str, Any]]:
    """The run's plan with `overrides` put over its own, and its stored result. ValueError where the run or the overrides do not fit."""
    from attnlab import record as records

    if not folder.is_dir():
        raise ValueError(f"run={folder}: there is no such folder; give the folder that holds the run's result.json")
    stored = records.Record(folder).result()
    if stored is None:
        raise ValueError(f"run={folder}: has no result.json, so it is no run; look in outputs/runs")
    if stored["status"] != records.FINISHED:
        raise ValueError(f"run={folder}: is {stored['status']}, not finished; repeat its command first: {stored.get('command')}")
    given = {text.partition("=")[0].lstrip("+") for text in overrides}
    chosen_anew = {key for key in given if key in (*FLAT, *KEYED)}
    kept = [
        text
        for text in stored["overrides"]
        if (key := text.partition("=")[0].lstrip("+~")) not in given and key.partition(".")[0] not in chosen_anew
    ]
    plan = compose([*kept, *overrides])
    groups = [key for key in (*FLAT, *KEYED) if key not in FREE]
    changed = [key for key in groups if records.changed_defaults(stored["config"][key], plan.full[key])]
    if changed:
        raise ValueError(f"{changed[0]} is the run's own and cannot be changed here; train another run, or change only data and ood")
    return plan, stored


def evaluate(folder: Path, overrides: list[str]) -> Path:
    """Evaluate and return the path of the new result.json."""
    from attnlab.evaluation import Evaluation

    plan, stored = plan_of(folder, overrides)
    return Evaluation(plan, folder, stored).go()


def main() -> None:
    words = sys.argv[1:]
    if not words or {"-h", "--help"} & set(words):
        print(HELP)
        return
    console()
    runs = [word.removeprefix("run=") for word in words if word.startswith("run=")]
    if len(runs) != 1:
        leave("give one run=FOLDER, the folder of a finished run")
    with one_line():
        path = evaluate(Path(runs[0]), [word for word in words if not word.startswith("run=")])
    print(path, flush=True)


if __name__ == "__main__":
    main()
