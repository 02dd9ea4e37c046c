"""Mirror: what a logger is told of a run, from the plan and the record."""

import logging
from collections.abc import Mapping
from typing import Any

from attnlab.config.plan import Plan
from attnlab.config.result import RUNNING, Found
from attnlab.evaluation.predictions import predictions
from attnlab.evaluation.trained import Trained
from attnlab.loggers.flat import flat_config
from attnlab.records.query import StoredRun
from attnlab.records.record import Record

log = logging.getLogger("attnlab")


def about(plan: Plan, record: Record, result: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a logger's `open`. A run made afresh (force=true) is another one than that whose record it replaced."""
    again = record.times_kept
    return {
        "folder": record.folder,
        "run_id": f"{record.run_id}-{again + 1}" if again else record.run_id,
        "name": record.run_id,
        "config": flat_config(StoredRun(Found(RUNNING, record.folder, result))),
        "group": plan.label.removesuffix(f"-s{plan.full['seed']}"),
        "tags": [*plan.full["attention"], *plan.full["regularizer"]],
        "notes": result["command"],
        "resumed": record.checkpoint_path.exists(),
    }


def show(logger: Any, trained: Trained, metrics: Mapping[str, float]) -> None:
    """Hand the logger what the record holds: numbers, scores, pictures, and single predictions."""
    logger.summary(metrics)
    for head, sets in trained.scores.items():
        for name, scores in sets.items():
            logger.histogram(f"ood/{head}/{name}", scores)
    for path in in_turn(trained.drawn()):
        logger.figure(f"figures/{(trained.folder / path).stem}", trained.folder / path)
    try:
        columns, rows = predictions(trained, logger.predictions)
    except Exception as error:  # a view of the run, which is there
        log.warning("no table of predictions: %s: %s", type(error).__name__, error)
        return
    if rows:
        logger.table("predictions", columns, rows)


def in_turn(kinds: Mapping[str, str]) -> list[str]:
    """Paths of pictures by their kind: the first of every kind, then the second of each, so that no kind is left out for another."""
    seen: dict[str, int] = {}
    rank: dict[str, int] = {}
    for path in sorted(path for path in kinds if path.endswith(".png")):
        rank[path] = seen[kinds[path]] = seen.get(kinds[path], -1) + 1
    return sorted(rank, key=rank.__getitem__)


def in_a_sweep() -> bool:
    """Whether this is one job of several, which end in one summary."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    return HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
