"""Piece 6: what each component adds to a step of ResNet-18, batch 128, in eager mode."""

from functools import partial
from typing import Any

from gpu_day.child import Day, Part


def parts(toy: bool, mode: str = "off") -> list[Part]:
    from benches.components import CHOICES, FIRST

    return [Part(choice, partial(added, choice=choice, mode=mode), 15 if mode == "off" else 50) for choice in (FIRST if toy else CHOICES)]


def added(day: Day, *, choice: str, mode: str) -> dict[str, Any]:
    from benches.components import one

    if mode != "off" and not day.gpu:
        day.left_out.append("components: compiled")
        return {}
    size, times = (128, 20) if day.gpu else (8, 1)
    return one(day.options, choice, day.options.settings(compile=mode, max_epochs=10), size=size, times=times)
