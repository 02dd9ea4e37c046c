"""Piece 7: the CIFAR-10 column of MaxDropout's table, a seed at a time, as many runs at once as pay. Images as JPEG: our own column."""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from gpu_day.child import Day, Part
from gpu_day.cifar10 import best_mode
from gpu_day.packing import best_number

ROWS = "regularizer=none,cutout,maxdropout,[cutout,maxdropout]"
CODE = ["regularizer=maxdropout,[cutout,maxdropout]", "regularizer.maxdropout.eval_mode=paper_code"]
EPOCHS = 200
TOLD = ("experiment", "regularizer", "attention", "loss", "model", "optimizer", "trainer.gradient_clip")


def parts(toy: bool) -> list[Part]:
    seeds = range(1 if toy else 5)
    rows = [Part(f"four rows, seed {seed}", partial(sweep, seed=seed, choices=[ROWS]), 300, goes_on=True) for seed in seeds]
    code = [Part(f"dropped at test time too, seed {seed}", partial(sweep, seed=seed, choices=CODE), 150, goes_on=True) for seed in seeds]
    return [part for pair in zip(rows, code) for part in pair]


def sweep(day: Day, *, seed: int, choices: list[str]) -> dict[str, Any]:
    return packed(day, "experiment=maxdropout/resnet18", *day.on_images(), *choices, epochs=EPOCHS, seed=seed)


def packed(day: Day, *words: str, epochs: int, seed: int) -> dict[str, Any]:
    """A sweep by the local launcher; what was finished before is not run again. Accuracies by run."""
    line = [*words, f"seed={seed}", "evaluator=none", "ood=none", "retries=1"]
    if day.toy:
        line += ["model.width=4", "trainer.max_epochs=1", "data.limit=128", "data.batch_size=32"]
        day.left_out.append("maxdropout, others: jobs packed onto a GPU, 200 epochs")
    else:
        line += [f"trainer.max_epochs={epochs}", f"trainer.compile={best_mode(day)}"]
    launcher = [] if day.toy else ["hydra/launcher=local", f"hydra.launcher.jobs_per_device={best_number(day)}"]
    records = day.train("-m", *line, *launcher)
    found = {
        record["run_id"]: {
            "overrides": [word for word in record["overrides"] if word.startswith(TOLD)],
            "test/acc": record["metrics"]["test/acc"],
            "seconds": record["seconds"],
            "images_per_second": record["images_per_second"],
        }
        for record in records
        if record.get("status") == "finished" and is_of(line, record["overrides"])
    }
    if not found:
        raise RuntimeError(f"no record of {' '.join(line)} among {len(records)}")
    return found


def is_of(line: Sequence[str], overrides: Sequence[str]) -> bool:
    """Whether a run with these overrides is a job of a sweep's line: the same keys, and the values that the line does not sweep.

    A sweeper writes true as True.
    """
    line, overrides = [word.lower() for word in line], [word.lower() for word in overrides]
    swept = {word for word in line if "," in re.sub(r"\[[^\]]*\]", "", word)}
    keys = {word.partition("=")[0] for word in line} | {"logger", "paths.outputs"}
    return set(line) - swept <= set(overrides) and {word.partition("=")[0] for word in overrides} == keys
