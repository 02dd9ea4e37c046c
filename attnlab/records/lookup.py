"""Whether a plan's run has been made already, and what is reported then. Needs no Lightning, so a repeat answers at once."""

import contextlib
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from attnlab.config.build import build
from attnlab.config.plan import Plan, outputs
from attnlab.config.result import FINISHED, HALTED, read_result, warnings_in
from attnlab.config.targets import ConfigError
from attnlab.records import code, images
from attnlab.records.record import Record, changed_defaults

log = logging.getLogger("attnlab")


def record_of(plan: Plan) -> Record:
    return Record.find(outputs(plan), plan.address, plan.label)


def finished(plan: Plan, *, stamps: dict[str, str] | None = None) -> tuple[Record, dict[str, Any]] | None:
    """The record of a plan whose run is finished and is not to be made again, and its result. Reads without a lock and writes nothing.

    A result that cannot be trusted is left to the job, which reports what is wrong. ConfigError: the run was made with other defaults, by
    other code, or of other images. stamps: what is known of the files of a configuration of data; a sweep of many jobs looks at them once.
    """
    if plan.full["force"] or plan.full["check"]:
        return None
    record = record_of(plan)
    stored = dict(read_result(record.folder).result)
    if stored.get("status") != FINISHED:
        return None
    changed = [text for text in changed_defaults(stored["config"], plan.full) if not text.startswith(plan.ignored)]
    if changed:
        raise ConfigError(f"{record.result_path} was made with other defaults ({'; '.join(changed[:3])}); force=true runs afresh")
    if check_code(plan, record, stored) and plan.full["same_code"] is False:
        return None
    check_images(plan, record, stored, stamps={} if stamps is None else stamps)
    return record, stored


def is_halted(plan: Plan) -> bool:
    """Whether a plan's run was told to end for now."""
    return read_result(record_of(plan).folder).status == HALTED


def goes_on(plan: Plan) -> bool:
    """Whether a plan's run has a checkpoint to go on from; a finished one that is made again has not (`force`, `same_code=false`)."""
    record = record_of(plan)
    return not plan.full["force"] and record.checkpoint_path.exists() and read_result(record.folder).status != FINISHED


def check_code(plan: Plan, record: Record, stored: Mapping[str, Any], *, trained: bool = False) -> list[str]:
    """The modules that a run (trained: its network) was made by and that are others now, which is said. ConfigError: one is of a package
    other than attnlab, and `same_code` does not say what to do. Who changes a component of hers wants its numbers, not those of before."""
    found = code.changed(stored.get("code", {}), code.code_of(plan, trained=trained))  # an early record has none
    theirs = code.foreign(found)
    if theirs and plan.full["same_code"] is None:
        raise ConfigError(
            f"{', '.join(theirs)}: the code is not that of {record.result_path}; same_code=false runs afresh what it has changed and keeps "
            "the old records beside, same_code=true says that it computes the same"
        )
    if found:
        log.info("%s: made by other code of %s", record.run_id, ", ".join(found))
    return found


def check_images(plan: Plan, record: Record, stored: Mapping[str, Any], *, stamps: dict[str, str]) -> None:
    """ConfigError where the images of a finished run are others now.

    Path, size and time of change of their files are compared, which is quick; only where these differ, the images themselves. Images that
    are not there any more are no other ones.
    """
    then = stored.get("data", {})
    if not then.get("stamp"):  # computed images, or an early record
        return
    data = build(plan.full["data"], allow=plan.allow, where="data")
    key = json.dumps(plan.full["data"], sort_keys=True)
    if key not in stamps:
        with contextlib.suppress(ValueError, OSError):
            stamps[key] = data.stamp()
    if stamps.get(key, "") in ("", then["stamp"]):
        return
    log.info("the files of data have changed since %s was made; comparing the images", record.run_id)
    try:
        now = data.describe()["digests"]
    except OSError as error:
        log.warning("they cannot be compared: %s", error)
        return
    for split in images.changed(then.get("digests", {}), now):
        raise ConfigError(
            f"data: the {split} images are not those of {record.result_path} ({images.difference(split, then['digests'], now)}); "
            "put those back to be shown its numbers, or force=true runs afresh and keeps the old record beside"
        )


def report(record: Record, result: Mapping[str, Any], plan: Plan) -> float | None:
    """The summary on stderr, the path on stdout; the objective is returned."""
    log_summary(result["metrics"], warnings_in(result))
    print(record.result_path, flush=True)
    return result["metrics"].get(plan.full["objective"])


def log_summary(metrics: Mapping[str, Any], warnings: Sequence[str] = ()) -> None:
    """The metrics of the network itself, less those of training and validation, and of the OOD metrics AUROC alone; then warnings."""
    shown = [key for key in metrics if key.endswith("/auroc") or not key.startswith(("train/", "val/", "ood/"))]
    width = max(map(len, shown), default=0)
    for key in shown:
        log.info("  %-*s %s", width, key, "none" if metrics[key] is None else f"{metrics[key]:.4f}")
    for text in warnings:
        log.warning("  warning: %s", text)


def skip(plan: Plan) -> tuple[bool, float | None]:
    """(True, objective) if the run is finished, after reporting it."""
    found = finished(plan)
    if not found:
        return False, None
    log.info("%s: finished before; nothing to do (force=true runs afresh)", found[0].run_id)
    return True, report(*found, plan)
