"""`python -m attnlab.evaluate run=RUN [evaluator=[...]] [explainer=[...]] [ood=[...]] [data...]`: evaluate a finished run again, or with
`weights=FILE model=... data=...` a network that was trained elsewhere.

Tests the run's own network and runs evaluators on it: other evaluators, explainers or OOD heads than its own, or other data of the same
shape and classes. What comes out is written to RUN/evaluations/<address>/result.json; the run's own record is not touched.

Several `run=` are ONE deep ensemble (arXiv 1612.01474): the mean of their probabilities is tested as one network's, on the first run's
data. The record is OUTPUTS/ensembles/<label>-<address>/result.json and names the members; their order does not matter.
With `join=features` they are one network instead, their features side by side and a mean of their final layers (CAT, arXiv 2212.07346).

`weights=FILE` is a .safetensors or a state dict of the network that model=NAME (model=timm model.name=NAME) builds, with its classifier;
what does not fit is named. The record is OUTPUTS/networks/<label>-<address>/result.json. From Python: `evaluate_weights(FILE, [...])`.
"""

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnlab.config.completion import choices, completed, run_ids
from attnlab.config.compose import compose
from attnlab.config.groups import GROUPS, having
from attnlab.config.overrides import OPTIONS, PERMISSIONS, key_of, permits
from attnlab.config.plan import Plan
from attnlab.config.targets import ConfigError
from attnlab.terminal import console, leave, one_line, tells_version

FREE = {"data", "trainer", *having(trains=False)}  # groups that may be chosen anew
ASKED = tuple(having(trains=False, several=True))  # what is asked of a network: heads, evaluators, explainers
JOINS = ("probabilities", "features")
ENSEMBLE_HEADS = "ood=[msp,entropy]"  # what a distribution over classes tells; a single run's default holds energy, which it does not
HELP = f"""{__doc__}
  weights=FILE      a network trained elsewhere; all other words are those of a run: model=timm model.name=resnet18 data=image_folder
                    data.path=FOLDER 'ood=[msp,knn]'; data.mean=[...] data.std=[...] where it was trained with others than data's own
  join=features     of several runs: one final layer on all their features, so that every OOD head works (default: probabilities)
  run=RUN           the folder of a finished run, its run_id, or the first digits of its address (3fa9); several are an ensemble
  evaluator=[calibration]   what is asked;  explainer=[gradcam]  maps of what the predictions rest on, drawn and scored
  ood=[msp,knn]     other heads;  data.ood=[mnist]  other OOD sets;  data=parquet data.path=FOLDER  another test set
                    (an ensemble's heads are msp and entropy unless you say; energy, react and vim need one network's logits or layers)
  trainer=cpu       another device;  paths.outputs=DIR  where the runs are (default: outputs)
  hydra.searchpath=[..] allow_targets=[..]   configs and code of somebody else, where the run was made with them: a record permits nothing
Everything else is a run's own configuration.
"""


def folder_of(word: str, outputs: Path) -> Path:
    """The folder of a run that a folder, a run_id or the beginning of an address names. ValueError: none, or several."""
    from attnlab.records.query import find_run, read_runs

    if Path(word).is_dir():
        return Path(word)
    if "/" in word:
        raise ValueError(f"run={word}: there is no such folder; give the folder that holds the run's result.json")
    try:
        return find_run(word, read_runs(outputs)).folder
    except ValueError as error:
        raise ValueError(f"run={error}") from error


def plan_of(folder: Path, overrides: list[str]) -> tuple[Plan, dict[str, Any]]:
    """The run's plan with `overrides` put over its own, and its stored result. ValueError where the run or the overrides do not fit."""
    from attnlab.records import record as records

    stored = records.Record(folder).result()
    if stored is None:
        raise ValueError(f"run={folder}: has no result.json, so it is no run; look in outputs/runs")
    if "members" in stored:
        raise ValueError(f"run={folder}: is an ensemble; give its members: run={' run='.join(stored['members'])}")
    if "weights" in stored:
        raise ValueError(f"run={folder}: is of a network trained elsewhere; repeat its command: {stored.get('command')}")
    if stored["status"] != records.FINISHED:
        raise ValueError(f"run={folder}: is {stored['status']}, not finished; repeat its command first: {stored.get('command')}")
    given = {key_of(text) for text in overrides}
    free = ", ".join(("data", *ASKED))
    if own_options := sorted(given & OPTIONS - set(PERMISSIONS)):
        raise ValueError(f"{own_options[0]} is the run's own and cannot be changed here; take another run, or change only {free}")
    chosen_anew = {key for key in given if key in GROUPS}
    own, theirs = read_overrides(folder, stored)
    kept = [text for text in own if (key := key_of(text)) not in given and key.partition(".")[0] not in chosen_anew]
    if stored["config"].get("teacher"):  # by its identity: it need not be there any more
        kept = [*(text for text in kept if key_of(text) != "teacher"), f"teacher={stored['config']['teacher']}"]
    if "paths.outputs" not in given and (around := outputs_of(folder)):
        kept = ["paths.outputs='{}'".format(str(around).replace("'", r"\'")), *kept]
    try:
        plan = compose_anew([*kept, *overrides], [group for group in ASKED if group in given])
    except ConfigError as error:
        if theirs and not any(map(permits, overrides)):
            hint = f"the run was made with {' '.join(theirs)}: repeat it here if you trust that code, as a record permits nothing"
            raise ConfigError(f"{error}; {hint}") from error
        raise
    groups = [key for key in GROUPS if key not in FREE]
    changed = [key for key in groups if records.changed_defaults(stored["config"].get(key) or {}, plan.full[key] or {})]
    if changed:
        raise ValueError(f"{changed[0]} is the run's own and cannot be changed here; train another run, or change only {free}")
    return plan, stored


def read_overrides(folder: Path, stored: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """A record's overrides: those that can be repeated, and those that permit code (`permits`), which count on a command line alone."""
    words = stored.get("overrides")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"run={folder}: result.json is damaged (no overrides)")
    own = [word for word in words if not permits(word)]
    return own, [word for word in words if permits(word) and key_of(word).partition(".")[0] != "paths"]


def outputs_of(folder: Path) -> Path | None:
    """OUTPUTS of a folder OUTPUTS/runs/ID; None of one that lies elsewhere. What the record says of paths may be of another machine."""
    runs = folder.absolute().parent
    return runs.parent if runs.name == "runs" else None


def compose_anew(overrides: list[str], groups: Collection[str]) -> Plan:
    """`compose`, but with those `groups` that `overrides` choose composed by themselves: what the run's experiment sets of its own heads
    or evaluators is not theirs, and would be refused as settings of ones that were not chosen."""
    if not groups:
        return compose(overrides)
    own = [text for text in overrides if key_of(text).partition(".")[0] in groups]
    packages = [text for text in overrides if permits(text)]
    chosen, plan = compose([*packages, *own]), compose([text for text in overrides if text not in own])
    full = {**plan.full, **{group: chosen.full[group] for group in groups}}
    short = {**plan.short, **{group: chosen.short[group] for group in groups}}
    return plan.changed(full=full, short=short, overrides=tuple(overrides))


def evaluate(folders: Sequence[Path], overrides: list[str], *, join: str = "probabilities") -> Path:
    """Evaluate one run, or several as an ensemble, and return the path of the new result.json. ValueError as `plan_of`, and for members
    that do not go together."""
    if join not in JOINS:
        raise ValueError(f"join={join}: must be one of {', '.join(JOINS)}")
    if join != JOINS[0] and len(folders) == 1:
        raise ValueError(f"join={join} joins several runs, and one is given; add run=RUN")
    from attnlab.pipeline.reevaluate import EnsembleReevaluation, FinishedRun, Reevaluation

    if len(folders) == 1:
        plan, stored = plan_of(folders[0], overrides)
        return Reevaluation(plan, FinishedRun(folders[0], plan, stored)).go()
    runs = [FinishedRun(folder, *plan_of(folder, list(filter(permits, overrides)))) for folder in folders]
    chosen = [] if "ood" in map(key_of, overrides) or join == "features" else [ENSEMBLE_HEADS]
    plan, _ = plan_of(folders[0], [*chosen, *overrides])
    how = [f"join={join}"] if join != JOINS[0] else []
    command = " ".join(["python -m attnlab.evaluate", *(f"run={folder}" for folder in folders), *how, *overrides])
    return EnsembleReevaluation(plan, runs, command=command, join=join).go()


def evaluate_weights(file: str | Path, overrides: Sequence[str]) -> Path:
    """Test a network that was trained elsewhere and ask it as a run of ours is asked; the path of its result.json.

    file: .safetensors or a state dict, of the network that `overrides` describe: `["model=timm", "model.name=resnet18",
    "data=image_folder", "data.path=FOLDER", "ood=[msp,knn]"]`. ConfigError, a ValueError of one line, for what does not fit.
    """
    from attnlab.pipeline.own_weights import WeightsEvaluation

    command = " ".join(["python -m attnlab.evaluate", f"weights={file}", *overrides])
    return WeightsEvaluation(compose(overrides), Path(file), command=command).go()


def candidates(words: Sequence[str]) -> list[str]:
    """What may come next, for completion."""
    keys = ("run=", "weights=", "join=", "paths.outputs=", "data.ood=")
    return [*keys, *(f"run={name}" for name in run_ids(words)), *(f"join={how}" for how in JOINS), *choices(GROUPS)]


def main() -> None:
    words = sys.argv[1:]
    if completed(words, "attnlab-evaluate", candidates):
        return
    if not words or {"-h", "--help"} & set(words):
        print(HELP)
        return
    if tells_version(words):
        return
    console()
    runs, files = ([word.partition("=")[2] for word in words if word.startswith(key)] for key in ("run=", "weights="))
    if bool(runs) + len(files) != 1:
        leave("give one run=RUN, the folder or the id of a finished run, or several for an ensemble; or one weights=FILE")
    with one_line():
        overrides = [word for word in words if not word.startswith(("run=", "join=", "weights="))]
        joins = [word.removeprefix("join=") for word in words if word.startswith("join=")]
        if files:
            print(evaluate_weights(files[0], overrides), flush=True)
            return
        roots = [word.partition("=")[2] for word in overrides if key_of(word) == "paths.outputs"]
        folders = [folder_of(run, Path(roots[-1] if roots else "outputs")) for run in runs]
        path = evaluate(folders, overrides, join=joins[-1] if joins else JOINS[0])
    print(path, flush=True)


if __name__ == "__main__":
    main()
