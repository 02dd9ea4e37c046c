"""Figures: what a person would rather look at than read, of what the evaluators before have found."""

import torch

from attnlab.evaluation.trained import TEST, Trained

NUM_IMAGES = 16


class Figures:
    """Pictures in `figures/`, no metric: training curves, OOD scores and consistency curves (after `ood`), the reliability of the test
    images, and every placed module's attention over 16 of them, evenly spaced."""

    def run(self, trained: Trained) -> dict[str, float]:
        from attnlab import figures

        if trained.history:
            figures.training_curves(trained.history, path=trained.picture("curves.png", "curves"))
        logits, labels = trained.logits(TEST)
        guessed = logits.argmax(1)
        if trained.scores:
            auroc = {
                head: {name: trained.metrics.get(f"ood/{head}/{name}/auroc") for name in sets} for head, sets in trained.scores.items()
            }
            figures.score_histograms(trained.scores, path=trained.picture("ood_scores.png", "ood_scores"), auroc=auroc)
            figures.consistency_curves(trained.scores, guessed == labels, path=trained.picture("consistency.png", "consistency"))
        figures.reliability(logits, labels, path=trained.picture("reliability.png", "reliability"))
        if len(trained.data.shape) == 3 and trained.maps:
            self.attention(trained, guessed)
        return {}

    def attention(self, trained: Trained, guessed_N: torch.Tensor) -> None:
        from attnlab import figures

        test = trained.data.split(TEST)
        classes = trained.data.classes
        chosen = torch.linspace(0, len(test) - 1, min(NUM_IMAGES, len(test))).round().long()
        images = test.subset(chosen).in_memory()
        for key, maps in trained.maps.items():
            figures.attention_grid(
                images.images,
                maps[chosen],
                path=trained.picture(f"attention_{key.replace('@', '_at_').replace('/', '.')}.png", "attention"),
                rectangles_N5=trained.rectangles[key][chosen] if key in trained.rectangles else None,
                boxes_N4=images.boxes,
                titles=[
                    classes[guess] if guess == label else f"{classes[guess]}, is {classes[label]}"
                    for guess, label in zip(guessed_N[chosen].tolist(), images.labels.tolist())
                ],
                correct=(images.labels == guessed_N[chosen]).tolist(),
            )
