"""Piece 5: OOD heads on the device: lens depth 10,000 x 10 x 1,500 (aim .5 s), kNN and Mahalanobis beside pytorch-ood's own."""

from typing import Any

from gpu_day.child import Day, Part


def parts(toy: bool) -> list[Part]:
    return [Part("heads", heads, 120)]


def heads(day: Day) -> dict[str, Any]:
    from benches.ood import measure

    if not day.gpu:
        day.left_out.append("ood: heads on CUDA, and 1,500 centres")
    return measure(day.options)[0]
