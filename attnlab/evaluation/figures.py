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

    takes_label_sets = True

    def __init__(self, *, pdf: bool = False) -> None:
        self.pdf = pdf

    def run(self, trained: Trained) -> dict[str, float]:
        from attnlab import figures

        draw = functools.partial(self.draw, trained)
        if trained.history:
            draw(figures.training_curves, trained.history, name="curves", kind="curves", peak_rate=trained.peak_rate)
        logits, labels = trained.logits(TEST)
        task = trained.data.task
        right = task.right(logits, task.targets(labels))
        if trained.scores:
            auroc = {
                head: {name: trained.metrics.get(f"ood/{head}/{name}/auroc") for name in sets} for head, sets in trained.scores.items()
            }
            draw(figures.score_histograms, trained.scores, name="ood_scores", kind="ood_scores", auroc=auroc)
            draw(figures.consistency_curves, trained.scores, right, name="consistency", kind="consistency")
        draw(figures.reliability, *task.decisions(logits, labels), name="reliability", kind="reliability")
        if len(trained.data.shape) == 3:
            self.attention(trained, logits, right)
        return {}

    def draw(self, trained: Trained, figure: Callable, *values: Any, name: str, kind: str, **options: Any) -> None:
        path = trained.picture(f"{name}.png", kind)
        figure(*values, path=path, **options)
        if self.pdf:
            figure(*values, path=path.with_suffix(".pdf"), **options)

    def attention(self, trained: Trained, logits_NK: torch.Tensor, right_N: torch.Tensor) -> None:
        from attnlab import figures

        test = trained.data.split(TEST)
        task, classes = trained.data.task, trained.data.classes
        chosen = torch.linspace(0, len(test) - 1, min(NUM_IMAGES, len(test))).round().long()
        maps, rectangles = trained.attention_over(chosen)
        images, right = test.subset(chosen).in_memory(), right_N[chosen].tolist()
        pairs = zip(task.guesses(logits_NK[chosen], classes), task.names(images.labels, classes), right)
        titles = [guess if correct else f"{guess}, is {label}" for guess, label, correct in pairs]
        for key, maps_M1HW in maps.items():
            self.draw(
                trained,
                figures.attention_grid,
                images.images,
                maps_M1HW,
                name=f"attention_{key.replace('@', '_at_').replace('/', '.')}",
                kind="attention",
                rectangles_N5=rectangles.get(key),
                boxes_N4=images.boxes,
                titles=titles,
                correct=right,
            )
