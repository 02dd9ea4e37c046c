"""About: what a person is told of one record, and of the difference of two."""

from typing import Any

from attnlab.config.overrides import permits
from attnlab.records.code import foreign
from attnlab.records.query import StoredRun, evaluations_of, flatten, is_number, shown
from attnlab.records.record import read_history
from attnlab.terminal import print_table, visible


def metric(value: Any) -> str:
    return f"{value:.4f}" if is_number(value) else shown(value)


def epochs(run: StoredRun) -> str:
    """How many there were; of a run that has not come through training, how many of how many."""
    if "epochs" in run.result:
        return str(run.result["epochs"])
    if {"weights", "members"} & {*run.result}:
        return ""
    total = run.leaves.get("trainer.max_epochs")
    return f"{len(read_history(run.folder / 'metrics.csv'))}/{total}" if total else ""


def clock(seconds: float) -> str:
    seconds = round(seconds)
    hours = f"{seconds // 3600}:{seconds // 60 % 60:02d}" if seconds >= 3600 else f"{seconds // 60}"
    return f"{hours}:{seconds % 60:02d}"


def show_run(run: StoredRun) -> None:
    result, made = run.result, run.result.get("code", {})
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
        "code": ", ".join(f"{name} {made[name][:8]}" for name in foreign(made)),
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
    for one in evaluations_of(run):
        asked = [word for word in one.result.get("overrides", []) if not permits(word) and word not in result.get("overrides", [])]
        print(visible(f"  evaluation {one.folder.name}  {one.status}  {' '.join(asked)}"))
        own = {key: value for key, value in one.metrics.items() if run.metrics.get(key) != value}
        for key, value in own.items():
            print(visible(f"    {key:<{max(map(len, own))}}  {metric(value)}"))


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
        found |= {f"code.{key}": value for key, value in run.result.get("code", {}).items()}
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
