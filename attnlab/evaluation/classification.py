"""Classification of the test images: what every run is asked first."""

from attnlab.evaluation.trained import TEST, Trained
from attnlab.metrics import classification_metrics


class Classification:
    """`test/acc`, `test/nll` (nats), `test/ece` (15 equal bins) and `test/brier`; see `attnlab.metrics`. Always run, before the others."""

    def run(self, trained: Trained) -> dict[str, float]:
        return {f"test/{name}": value for name, value in classification_metrics(*trained.logits(TEST)).items()}
