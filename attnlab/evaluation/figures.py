"""Figures: what a person would rather look at than read, of what the evaluators before have found."""

import functools
from collections.abc import Callable
from typing import Any

import torch

from attnlab.evaluation.trained import TEST, Trained

NUM_IMAGES = 16


class Figures:
    """Pictures in `figures/`, no metric: training curves, OOD scores and consistency curves (after `ood`), the reliability of the test
    images, and every placed module's attention over 16 of them, evenly spaced.

    pdf: True writes each as a .pdf, too, beside its .png.
    """

    def __init__(self, *, pdf: bool = False) -> None:
        self.pdf = pdf

    def run(self, trained: Trained) -> dict[str, float]:
        from attnlab import figures

        draw = functools.partial(self.draw, trained)
        if trained.history:
            draw(figures.training_curves, trained.history, name="curves", kind="curves", peak_rate=trained.peak_rate)
        logits, labels = trained.logits(TEST)
        guessed = logits.argmax(1)
        if trained.scores:
            auroc = {
                head: {name: trained.metrics.get(f"ood/{head}/{name}/auroc") for name in sets} for head, sets in trained.scores.items()
            }
            draw(figures.score_histograms, trained.scores, name="ood_scores", kind="ood_scores", auroc=auroc)
            draw(figures.consistency_curves, trained.scores, guessed == labels, name="consistency", kind="consistency")
        draw(figures.reliability, logits, labels, name="reliability", kind="reliability")
        if len(trained.data.shape) == 3 and trained.maps:
            self.attention(trained, guessed)
        return {}

    def draw(self, trained: Trained, figure: Callable, *values: Any, name: str, kind: str, **options: Any) -> None:
        path = trained.picture(f"{name}.png", kind)
        figure(*values, path=path, **options)
        if self.pdf:
            figure(*values, path=path.with_suffix(".pdf"), **options)

    def attention(self, trained: Trained, guessed_N: torch.Tensor) -> None:
        from attnlab import figures

        test = trained.data.split(TEST)
        classes = trained.data.classes
        chosen = torch.linspace(0, len(test) - 1, min(NUM_IMAGES, len(test))).round().long()
        images = test.subset(chosen).in_memory()
        for key, maps in trained.maps.items():
            self.draw(
                trained,
                figures.attention_grid,
                images.images,
                maps[chosen],
                name=f"attention_{key.replace('@', '_at_').replace('/', '.')}",
                kind="attention",
                rectangles_N5=trained.rectangles[key][chosen] if key in trained.rectangles else None,
                boxes_N4=images.boxes,
                titles=[
                    classes[guess] if guess == label else f"{classes[guess]}, is {classes[label]}"
                    for guess, label in zip(guessed_N[chosen].tolist(), images.labels.tolist())
                ],
                correct=(images.labels == guessed_N[chosen]).tolist(),
            )
