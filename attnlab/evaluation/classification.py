"""Classification of the test images: what every run is asked first."""

from attnlab.evaluation.trained import TEST, Trained


class Classification:
    """`test/acc`, `test/nll` (nats), `test/ece` (15 equal bins) and `test/brier`; see `attnlab.metrics`. Of a set
    with several labels an image, those of its task. Always run, before the others."""

    def run(self, trained: Trained) -> dict[str, float]:
        return {f"test/{name}": value for name, value in trained.data.task.metrics(*trained.logits(TEST)).items()}
