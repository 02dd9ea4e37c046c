"""Stages: what is done with a trained network: test, ood, localisation, figures. None needs another's success, each is kept at once."""

import logging
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from attnlab.data.base import ImageData
from attnlab.network import Network
from attnlab.records import record as records
from attnlab.training.settings import Settings

log = logging.getLogger("attnlab")

NUM_PICTURES = 16


class Stages:
    """The stages after training, on `network` and `data`; results go into `result` and through `save` to the disk.

    `folder` takes the figures. A stage that fails is noted in `result["error"]`, the others go on, and `after_training` raises the first
    error at the end.
    """

    data: ImageData
    network: Network
    settings: Settings
    heads: Mapping[str, Any]

    def __init__(self, folder: Path, result: dict[str, Any], save: Callable[[dict[str, Any]], None]) -> None:
        self.folder = folder
        self.result = result
        self.save = save
        self.history: list[dict[str, float]] = []
        self.scores: dict[str, dict[str, Tensor]] = {}
        self.bank: Any = None
        self.maps: dict[str, Tensor] = {}
        self.rectangles: dict[str, Tensor] = {}

    def stage(self, step: Callable[[], None]) -> None:
        """Run one stage, time it, save."""
        self.result["stage"] = step.__name__
        start = time.monotonic()
        step()
        self.result["stage_seconds"][step.__name__] = round(time.monotonic() - start, 3)
        self.save(self.result)

    def after_training(self) -> None:
        failures = []
        for step in (self.test, self.ood, self.localisation, self.figures):
            try:
                self.stage(step)
            except Exception as error:
                failures.append(error)
                self.note(error)
        if failures:
            raise failures[0]
        self.result |= {"status": records.FINISHED, "stage": "done", "finished": time.time()}

    def note(self, error: BaseException) -> None:
        """The record says what failed first; train.log says where."""
        if "error" in self.result:
            return
        text = " ".join(str(error).split()) or type(error).__name__
        self.result["error"] = {"stage": self.result["stage"], "kind": type(error).__name__, "message": text}
        log.debug("%s", "".join(traceback.format_exception(error)))

    # ---- the stages ---------------------------------------------------------------------------------------------------------------

    def test(self) -> None:
        from attnlab.metrics import classification_metrics

        self.bank = self.extract("test")
        metrics = classification_metrics(self.bank.logits, self.bank.labels)
        self.result["metrics"] |= {f"test/{name}": value for name, value in metrics.items()}

    def ood(self) -> None:
        from attnlab.ood.evaluate import evaluate_heads

        if not self.heads or not self.data.ood:
            return
        log.info("scoring %s on %s", ", ".join(self.heads), ", ".join(self.data.ood))
        with self.settings.autocast():
            sets = {name: self.loader(name) for name in self.data.ood}
            metrics, self.scores, errors = evaluate_heads(
                self.network, self.heads, self.loader("train"), self.loader("test"), sets, test_bank=self.bank
            )
        self.result["metrics"] |= metrics
        if errors:
            raise ValueError("; ".join(f"ood.{name}: {message}" for name, message in errors.items()))

    def localisation(self) -> None:
        from attnlab.evaluation.localisation import localisation_metrics

        self.collect_maps()
        boxes = self.data.split("test").boxes
        if boxes is None or len(self.data.shape) != 3:
            return
        height, width = self.data.shape[1:]
        for key, maps in self.maps.items():
            found = localisation_metrics(maps, boxes, height, width, rectangles_B5=self.rectangles.get(key))
            self.result["metrics"] |= {f"loc/{key}/{name}": value for name, value in found.items()}

    def figures(self) -> None:
        """Everything a person would rather look at than read."""
        from attnlab import figures

        folder = self.folder / "figures"
        if self.history:
            figures.training_curves(self.history, path=folder / "curves.png")
        if self.scores:
            metrics = self.result["metrics"]
            auroc = {head: {name: metrics.get(f"ood/{head}/{name}/auroc") for name in sets} for head, sets in self.scores.items()}
            figures.score_histograms(self.scores, path=folder / "ood_scores.png", auroc=auroc)
            if self.bank is not None:
                right = (self.bank.logits.argmax(1) == self.bank.labels).cpu()
                figures.consistency_curves(self.scores, right, path=folder / "consistency.png")
        if self.bank is not None:
            figures.reliability(self.bank.logits.cpu(), self.bank.labels.cpu(), path=folder / "reliability.png")
        if not self.maps or self.bank is None or len(self.data.shape) != 3:
            return
        test = self.data.split("test")
        chosen = torch.linspace(0, len(test) - 1, min(NUM_PICTURES, len(test))).round().long()
        images = test.subset(chosen).in_memory()
        guessed = self.bank.logits.argmax(1).cpu()[chosen]
        for key, maps in self.maps.items():
            figures.attention_grid(
                images.images,
                maps[chosen],
                path=folder / f"attention_{key.replace('@', '_at_').replace('/', '.')}.png",
                rectangles_N5=self.rectangles[key][chosen] if key in self.rectangles else None,
                boxes_N4=images.boxes,
                titles=[self.data.classes[index] for index in guessed.tolist()],
                correct=(images.labels == guessed).tolist(),
            )

    # ---- what they share ----------------------------------------------------------------------------------------------------------

    def loader(self, split: str) -> Any:
        return self.data.eval_loader(split, self.settings.device)

    def extract(self, split: str) -> Any:
        from attnlab.ood.extract import extract

        with self.settings.autocast():
            return extract(self.network, self.loader(split))

    def collect_maps(self) -> None:
        """Attention maps and rectangles of every placed module that has them, over the test images, on the CPU."""
        components = [(key, component) for key, component in self.network.placed.components() if hasattr(component, "map")]
        if not components:
            return
        found: dict[str, dict[str, list[Tensor]]] = {"map": {}, "rectangle": {}}
        self.network.eval()
        with torch.no_grad(), self.settings.autocast():
            for x, _ in self.loader("test"):
                self.network(x)
                for key, component in components:
                    for name, store in found.items():
                        value = getattr(component, name, None)
                        if value is not None:
                            store.setdefault(key, []).append(value.detach().float().cpu())
        self.maps, self.rectangles = ({key: torch.cat(parts) for key, parts in store.items()} for store in found.values())
