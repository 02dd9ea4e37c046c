"""Explanations: the maps of the chosen explainers over test images, drawn and scored against true boxes.

Legend: B batch, N images, H, W image size.
"""

import logging
import time
from typing import Any, Literal

import torch
from torch import Tensor

from attnlab.evaluation.localisation import localisation_metrics
from attnlab.evaluation.trained import TEST, Incomplete, Trained

log = logging.getLogger("attnlab")

NAMES = {"pointing": "pointing", "energy": "energy", "map_iou": "iou"}  # of localisation_metrics, and as they are recorded
BATCH = 32


class Explanations:
    """`explain/<explainer>/<metric>` of every explainer of `explainer=[...]`, and `figures/explanations.png`.

    An explainer is any object with `explain(network, x_BCHW, target_B) -> map_B1HW`, larger = more relevant. `seconds`: mean time an image.
    Where the test images have boxes: `pointing`, `energy` and `iou` of `attnlab.evaluation.localisation`, means over the images with one;
    negative relevance counts as none. The images are the same for every explainer of every run: a stratified choice by `seed`.

    Args:
        num_images: how many are drawn, at least 1.
        num_scored: how many are explained where there are boxes, at least `num_images`.
        target: the class that is explained, the `predicted` one or the `label`.
        seed: of the choice of images.

    Nothing is done without explainers. Raises Incomplete: an explainer that fails costs its own metrics only. ValueError: data that are no
    images; maps that are not (B, 1, H, W) or not finite.
    """

    def __init__(
        self, *, num_images: int = 8, num_scored: int = 256, target: Literal["predicted", "label"] = "predicted", seed: int = 0
    ) -> None:
        if not 1 <= num_images <= num_scored:
            raise ValueError(f"num_images must be at least 1 and at most num_scored, got {num_images} and {num_scored}")
        self.num_images, self.num_scored, self.target, self.seed = num_images, num_scored, target, seed

    def run(self, trained: Trained) -> dict[str, float]:
        from attnlab import figures

        if not trained.explainers:
            return {}
        if len(trained.data.shape) != 3:
            raise ValueError(f"explanations are of images, {trained.data.name} has values of shape {trained.data.shape}")
        boxed = trained.data.split(TEST).boxes is not None
        chosen_N, images = trained.choice(TEST, self.num_scored if boxed else self.num_images, seed=self.seed)
        guessed_N = trained.logits(TEST)[0][chosen_N].argmax(1)
        target_N = guessed_N if self.target == "predicted" else images.labels
        height, width = trained.data.shape[1:]
        metrics: dict[str, float] = {}
        drawn: dict[str, Tensor] = {}
        notes: dict[str, list[str]] = {}
        errors = []
        for name, explainer in trained.explainers.items():
            try:
                start = time.monotonic()
                maps = self.explain(trained, explainer, images.images, target_N)
                metrics[f"explain/{name}/seconds"] = (time.monotonic() - start) / len(maps)
                if boxed:
                    found = localisation_metrics(maps.clamp(min=0), images.boxes, height, width)
                    metrics |= {f"explain/{name}/{NAMES[key]}": value for key, value in found.items() if key in NAMES}
                    shown = images.boxes[: self.num_images]
                    notes[name] = [self.note(maps[i : i + 1], shown[i : i + 1], height, width) for i in range(len(shown))]
                drawn[name] = maps[: self.num_images]
            except Exception as error:
                log.warning("explain: %s failed: %s", name, error)
                errors.append(f"explainer.{name}: {type(error).__name__}: {error}")
        shown = images.subset(torch.arange(min(self.num_images, len(images))))
        classes = trained.data.classes
        figures.explanation_grid(
            shown.images,
            drawn,
            path=trained.picture("explanations.png", "explanation"),
            boxes_N4=shown.boxes,
            titles=[f"{classes[label]}\n→ {classes[guess]}" for label, guess in zip(shown.labels.tolist(), guessed_N.tolist())],
            correct=(shown.labels == guessed_N[: len(shown)]).tolist(),
            notes=notes,
        )
        if errors:
            raise Incomplete("; ".join(errors), metrics)
        return metrics

    def explain(self, trained: Trained, explainer: Any, images: Tensor, target_N: Tensor) -> Tensor:
        """Maps (N, 1, H, W) on the CPU, batch by batch."""
        device, maps = trained.settings.device, []
        for x, target_B in zip(images.split(BATCH), target_N.split(BATCH)):
            map_B1HW = explainer.explain(trained.network, trained.data.normalise(x).to(device), target_B.to(device))
            if not isinstance(map_B1HW, Tensor) or map_B1HW.ndim != 4 or map_B1HW.shape[:2] != (len(x), 1):
                given = tuple(map_B1HW.shape) if isinstance(map_B1HW, Tensor) else type(map_B1HW).__name__
                raise ValueError(f"explain must return maps ({len(x)}, 1, H, W), got {given}")
            maps.append(map_B1HW.detach().float().cpu())
        maps_N1HW = torch.cat(maps)
        if not maps_N1HW.isfinite().all():
            raise ValueError(f"{int((~maps_N1HW.isfinite()).flatten(1).any(1).sum())} of {len(maps_N1HW)} maps hold NaN or infinite values")
        return maps_N1HW

    def note(self, map_11HW: Tensor, box_14: Tensor, height: int, width: int) -> str:
        """The score of one image, for the picture."""
        found = localisation_metrics(map_11HW.clamp(min=0), box_14, height, width)
        if "map_iou" not in found:
            return ""
        return f"IoU {found['map_iou']:.2f}"
