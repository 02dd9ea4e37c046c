"""Piece 3: 200 epochs of ResNet-18 on CIFAR-10 from a cold command to its record, and where the seconds go (aim: 120 s of fit, then 90)."""

import shutil
from typing import Any

from gpu_day.child import Day, Part

TOY = ["model.width=4", "data.batch_size=64"]


def parts(toy: bool) -> list[Part]:
    return [
        Part("which mode of torch.compile", probe, 150),
        Part("200 epochs, cold", cold, 330, goes_on=True),
        Part("20 epochs, warm cache", warm, 60),
    ]


def words(day: Day, epochs: int) -> list[str]:
    small = [*TOY, f"trainer.max_epochs={min(epochs, 2)}"] if day.toy else [f"trainer.max_epochs={epochs}"]
    return ["experiment=maxdropout/resnet18", "regularizer=none", *day.on_images(), "evaluator=none", *small]


def probe(day: Day) -> dict[str, Any]:
    """Images a second of a few epochs through the command, by mode; the first epoch, which compiles, left out."""
    found = {}
    for mode in ("off",) if day.toy else ("off", "default", "reduce-overhead"):
        (record,) = day.train(*words(day, 6), f"trainer.compile={mode}", outputs=day.outputs / "probe")
        rows = history(day, record)
        found[mode] = {"images_per_second": max(row["images_per_second"] for row in rows), "first_epoch_seconds": rows[0]["seconds"]}
    if day.toy:
        day.left_out.append("cifar10: torch.compile default and reduce-overhead through the command")
    return {"modes": found, "best": max(found, key=lambda mode: found[mode]["images_per_second"])}


def best_mode(day: Day) -> str:
    return day.found("cifar10", "which mode of torch.compile").get("best") or "auto"


def cold(day: Day) -> dict[str, Any]:
    """With an empty cache of kernels, unless it is going on from an earlier call."""
    line = [*words(day, 200), f"trainer.compile={best_mode(day)}"]
    going_on = bool(list((day.outputs / "cold").glob("runs/*/last.ckpt")))
    if not going_on and not day.toy:
        shutil.rmtree(day.out / "compiled", ignore_errors=True)
    (record,) = day.train(*line, outputs=day.outputs / "cold")
    return {**told(record), "interrupted": going_on}


def warm(day: Day) -> dict[str, Any]:
    (record,) = day.train(*words(day, 20), f"trainer.compile={best_mode(day)}", "seed=1", outputs=day.outputs / "warm")
    return told(record)


def told(record: dict[str, Any]) -> dict[str, Any]:
    kept = ("run_id", "epochs", "seconds", "images_per_second", "stage_seconds", "wall_seconds", "precision", "device")
    return {**{key: record[key] for key in kept}, "test/acc": record["metrics"]["test/acc"]}


def history(day: Day, record: dict[str, Any]) -> list[dict[str, float]]:
    import csv

    (path,) = day.outputs.glob(f"*/runs/{record['run_id']}/metrics.csv")
    with open(path) as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
