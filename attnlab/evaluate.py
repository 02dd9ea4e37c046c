"""`python -m attnlab.evaluate run=FOLDER [ood=[...]] [data.ood=[...]] [data...]`: test a finished run again, without training.

Tests, OOD heads and localisation of the run's own network, with other heads or on other data of the same shape and classes. What comes
out is written to FOLDER/evaluations/<address>/result.json; the run's own record is not touched.

Several `run=` are ONE deep ensemble (arXiv 1612.01474): the mean of their probabilities is tested as one network's, on the first run's
data. The record is OUTPUTS/ensembles/<label>-<address>/result.json and names the members; their order does not matter.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnlab.config.compose import compose
from attnlab.config.groups import GROUPS, having
from attnlab.config.plan import Plan
from attnlab.terminal import console, leave, one_line

FREE = {"data", "trainer", *having(trains=False)}  # groups that may be chosen anew
ENSEMBLE_HEADS = "ood=[msp,entropy]"  # what a distribution over classes tells; a single run's default holds energy, which it does not
HELP = f"""{__doc__}
  run=FOLDER        the folder of a finished run, as printed by attnlab.train; give several for an ensemble
  ood=[msp,knn]     other heads;  data.ood=[mnist]  other OOD sets;  data=parquet data.path=FOLDER  another test set
                    (an ensemble's heads are msp and entropy unless you say; energy, react and vim need one network's logits or layers)
  trainer=cpu       another device
Everything else is the run's own configuration.
"""


def plan_of(folder: Path, overrides: list[str]) -> tuple[Plan, dict[str, Any]]:
    """The run's plan with `overrides` put over its own, and its stored result. ValueError where the run or the overrides do not fit."""
    from attnlab.records import record as records

    if not folder.is_dir():
        raise ValueError(f"run={folder}: there is no such folder; give the folder that holds the run's result.json")
    stored = records.Record(folder).result()
    if stored is None:
        raise ValueError(f"run={folder}: has no result.json, so it is no run; look in outputs/runs")
    if stored["status"] != records.FINISHED:
        raise ValueError(f"run={folder}: is {stored['status']}, not finished; repeat its command first: {stored.get('command')}")
    given = {key_of(text) for text in overrides}
    chosen_anew = {key for key in given if key in GROUPS}
    kept = [text for text in stored["overrides"] if (key := key_of(text)) not in given and key.partition(".")[0] not in chosen_anew]
    if stored["config"].get("teacher"):  # by its identity: it need not be there any more
        kept = [*(text for text in kept if key_of(text) != "teacher"), f"teacher={stored['config']['teacher']}"]
    plan = with_heads([*kept, *overrides]) if "ood" in given else compose([*kept, *overrides])
    groups = [key for key in GROUPS if key not in FREE]
    changed = [key for key in groups if records.changed_defaults(stored["config"][key], plan.full[key])]
    if changed:
        raise ValueError(f"{changed[0]} is the run's own and cannot be changed here; train another run, or change only data and ood")
    return plan, stored


def with_heads(overrides: list[str]) -> Plan:
    """`compose`, but with the heads that `overrides` name composed by themselves: what the run's experiment sets of its own heads is not
    theirs, and would be refused as settings of heads that were not chosen."""
    heads = [text for text in overrides if key_of(text).partition(".")[0] == "ood"]
    packages = [text for text in overrides if key_of(text).partition(".")[0] in ("allow_targets", "hydra")]
    chosen = compose([*packages, *heads])
    plan = compose([text for text in overrides if text not in heads])
    full, short = ({**tree, "ood": own["ood"]} for tree, own in ((plan.full, chosen.full), (plan.short, chosen.short)))
    return plan.changed(full=full, short=short, overrides=tuple(overrides))


def key_of(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def evaluate(folders: Sequence[Path], overrides: list[str]) -> Path:
    """Evaluate one run, or several as an ensemble, and return the path of the new result.json. ValueError as `plan_of`, and for members
    that do not go together."""
    from attnlab.pipeline.reevaluate import EnsembleEvaluation, Evaluation, Trained

    if len(folders) == 1:
        plan, stored = plan_of(folders[0], overrides)
        return Evaluation(plan, Trained(folders[0], plan, stored)).go()
    runs = [Trained(folder, *plan_of(folder, [])) for folder in folders]
    chosen = [] if "ood" in map(key_of, overrides) else [ENSEMBLE_HEADS]
    plan, _ = plan_of(folders[0], [*chosen, *overrides])
    command = " ".join(["python -m attnlab.evaluate", *(f"run={folder}" for folder in folders), *overrides])
    return EnsembleEvaluation(plan, runs, command=command).go()


def main() -> None:
    words = sys.argv[1:]
    if not words or {"-h", "--help"} & set(words):
        print(HELP)
        return
    console()
    runs = [word.removeprefix("run=") for word in words if word.startswith("run=")]
    if not runs:
        leave("give one run=FOLDER, the folder of a finished run, or several for an ensemble")
    with one_line():
        path = evaluate([Path(run) for run in runs], [word for word in words if not word.startswith("run=")])
    print(path, flush=True)


if __name__ == "__main__":
    main()
