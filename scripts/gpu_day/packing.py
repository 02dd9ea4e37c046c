"""Piece 4: 1, 2, 4 and 8 trainings at once on the device: images a second in all."""

from functools import partial
from typing import Any

from gpu_day.child import Day, Part
from gpu_day.cifar10 import best_mode

JOBS = (1, 2, 4, 8)


def parts(toy: bool) -> list[Part]:
    return [Part(f"{jobs} at once", partial(at_once, jobs=jobs), 60 + 10 * jobs) for jobs in (JOBS[:2] if toy else JOBS)]


def at_once(day: Day, *, jobs: int) -> dict[str, Any]:
    """As many runs as fit at once, each of 20 epochs of CIFAR-10, all kernels compiled before."""
    from benches.packing import one

    mine = ["evaluator=none", *day.on_images()]
    size = ["model.width=4", "data.batch_size=64", "trainer.max_epochs=1"] if day.toy else ["trainer.max_epochs=20"]
    return one(jobs, gpu=day.gpu, runs=jobs, words=[*mine, *size, f"trainer.compile={best_mode(day)}"])


def best_number(day: Day) -> int:
    """How many at once give most images a second."""
    rates = {jobs: day.found("packing", f"{jobs} at once").get("images_per_second", 0.0) for jobs in JOBS}
    return max(rates, key=rates.get) if any(rates.values()) else 2
