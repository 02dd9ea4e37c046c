"""Whether a plan's run has been made already, and what is reported then. Needs no Lightning, so a repeat answers at once."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from attnlab.config.plan import Plan, outputs
from attnlab.config.result import FINISHED, read_result, warnings_in
from attnlab.config.targets import ConfigError
from attnlab.records.record import Record, changed_defaults

log = logging.getLogger("attnlab")


def record_of(plan: Plan) -> Record:
    return Record.find(outputs(plan), plan.address, plan.label)


def finished(plan: Plan) -> tuple[Record, dict[str, Any]] | None:
    """The record of a plan whose run is finished and is not to be made again, and its result. Reads without a lock and writes nothing.

    A result that cannot be trusted is left to the job, which reports what is wrong. ConfigError: the run was made with other defaults.
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
    return record, stored


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
