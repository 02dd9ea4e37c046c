"""Explanations: the maps of the chosen explainers over test images, drawn and scored against true boxes.

Legend: B batch, N images, H, W image size.
"""

import functools
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from attnlab.config.suggest import nearest
from attnlab.data.base import ImageData
from attnlab.evaluation.attribution_scores import class_sensitivity, sparseness
from attnlab.evaluation.faithfulness import aupc, autvc, deletion_insertion
from attnlab.evaluation.localisation import box_mask, localisation_metrics, relevance_rank_accuracy
from attnlab.evaluation.trained import TEST, Incomplete, Trained

log = logging.getLogger("attnlab")

NAMES = {"pointing": "pointing", "energy": "energy", "map_iou": "iou"}  # of localisation_metrics, and as they are recorded
BATCH = 32
PAPER = 224  # pixels a side of the images that windows and levels of published scores are meant for


class Explained(NamedTuple):
    """A batch whose maps are scored: explain(target_B) gives maps for other classes."""

    network: nn.Module
    data: ImageData
    x_BCHW: Tensor
    map_B1HW: Tensor
    target_B: Tensor
    explain: Callable[[Tensor], Tensor]


def _deletion_insertion(one: Explained) -> dict[str, Tensor]:
    found = deletion_insertion(one.network, one.x_BCHW, one.map_B1HW, target_B=one.target_B)
    return {"deletion": found.deletion, "insertion": found.insertion}


def _aupc(one: Explained) -> dict[str, Tensor]:
    """The authors' windows relative to the image's size, 11 fillings."""
    side = min(one.x_BCHW.shape[2:])
    kernel = max(3, round(15 * side / PAPER))
    num_regions = max(1, min(30, (side - kernel) ** 2 // (2 * kernel - 1) ** 2))  # so many always fit
    mean, std = one.data.moments()
    options = {"kernel": kernel, "num_regions": num_regions, "num_fills": 11}
    return {"aupc": aupc(one.network, one.x_BCHW, one.map_B1HW, one.target_B, mean=mean, std=std, **options)}


def _autvc(one: Explained) -> dict[str, Tensor]:
    return {"autvc": autvc(one.map_B1HW, smallest=math.ceil(30 * min(one.x_BCHW.shape[2:]) / PAPER))}


def _class_sensitivity(one: Explained) -> dict[str, Tensor]:
    """Over the first five classes at most."""
    classes = range(min(5, one.data.num_classes))
    return {"class_sensitivity": class_sensitivity(torch.stack([one.explain(torch.full_like(one.target_B, c)) for c in classes]))}


def _sparseness(one: Explained) -> dict[str, Tensor]:
    return {"sparseness": sparseness(one.map_B1HW)}


SCORES: dict[str, Callable[[Explained], dict[str, Tensor]]] = {
    "deletion_insertion": _deletion_insertion,
    "aupc": _aupc,
    "autvc": _autvc,
    "class_sensitivity": _class_sensitivity,
    "sparseness": _sparseness,
}


class Explanations:
    """`explain/<explainer>/<metric>` of every explainer of `explainer=[...]`, and `figures/explanations.png`.

    An explainer is any object with `explain(network, x_BCHW, target_B) -> map_B1HW`, larger = more relevant; one that says `signed = True`
    gives maps with a sign, which are scored and drawn by their magnitude. `seconds`: mean time an image.
    Where the test images have boxes: `pointing`, `energy`, `iou` and `rank_accuracy` of `attnlab.evaluation.localisation`, means over the
    images with one; negative relevance counts as none. On `num_perturbed` images the means of `scores`: see `evaluation.faithfulness` and
    `evaluation.attribution_scores`. The images are the same for every explainer of every run: a stratified choice by `seed`.

    Args:
        num_images: how many are drawn, at least 1.
        num_scored: how many are explained where there are boxes, at least `num_images`.
        scores: which of deletion_insertion, aupc, autvc, class_sensitivity and sparseness. An image costs 2 (W + 1) passes for
            deletion_insertion, some 330 for aupc, and five explanations for class_sensitivity.
        num_perturbed: on how many of the images these are taken; 0: none.
        target: the class that is explained, the `predicted` one or the `label`.
        seed: of the choice of images.

    Nothing is done without explainers. Raises Incomplete: an explainer that fails costs its own metrics only. ValueError: data that are no
    images; maps that are not (B, 1, H, W) or not finite.
    """

    def __init__(
        self,
        *,
        num_images: int = 8,
        num_scored: int = 256,
        scores: Sequence[str] = ("deletion_insertion",),
        num_perturbed: int = 64,
        target: Literal["predicted", "label"] = "predicted",
        seed: int = 0,
    ) -> None:
        if not 1 <= num_images <= num_scored:
            raise ValueError(f"num_images must be at least 1 and at most num_scored, got {num_images} and {num_scored}")
        if num_perturbed < 0:
            raise ValueError(f"num_perturbed must be at least 0, got {num_perturbed}")
        for name in scores:
            if name not in SCORES:
                raise ValueError(f"scores={name}: there is no such score; {nearest(name, list(SCORES))}")
        self.num_images, self.num_scored, self.target, self.seed = num_images, num_scored, target, seed
        self.scores, self.num_perturbed = tuple(scores), num_perturbed if scores else 0

    def run(self, trained: Trained) -> dict[str, float]:
        from attnlab import figures

        if not trained.explainers:
            return {}
        if len(trained.data.shape) != 3:
            raise ValueError(f"explanations are of images, {trained.data.name} has values of shape {trained.data.shape}")
        boxed = trained.data.split(TEST).boxes is not None
        num = self.num_scored if boxed else self.num_images
        chosen_N, images = trained.choice(TEST, max(num, self.num_perturbed), seed=self.seed)
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
                maps = maps.abs() if getattr(explainer, "signed", False) else maps
                if boxed:
                    found = localisation_metrics(maps.clamp(min=0), images.boxes, height, width)
                    metrics |= {f"explain/{name}/{NAMES[key]}": value for key, value in found.items() if key in NAMES}
                    ranked = relevance_rank_accuracy(maps, box_mask(images.boxes, height, width)).nanmean()
                    metrics |= {} if ranked.isnan() else {f"explain/{name}/rank_accuracy": float(ranked)}
                    shown = images.boxes[: self.num_images]
                    notes[name] = [self.note(maps[i : i + 1], shown[i : i + 1], height, width) for i in range(len(shown))]
                drawn[name] = maps[: self.num_images]
                found = self.scored(trained, explainer, images.images, maps, target_N)
                metrics |= {f"explain/{name}/{key}": value for key, value in found.items()}
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

    def scored(self, trained: Trained, explainer: Any, images: Tensor, maps_N1HW: Tensor, target_N: Tensor) -> dict[str, float]:
        """Means of `scores` over the first `num_perturbed` images, batch by batch."""
        device, found, first = trained.settings.device, {}, slice(self.num_perturbed)
        batches = (values[first].split(BATCH) for values in (images, maps_N1HW, target_N))
        for part, map_B1HW, target_B in zip(*batches):
            x = trained.data.normalise(part).to(device)
            again = functools.partial(explainer.explain, trained.network, x)
            one = Explained(trained.network, trained.data, x, map_B1HW.to(device), target_B.to(device), again)
            for name in self.scores:
                for key, value_B in SCORES[name](one).items():
                    found.setdefault(key, []).append(value_B.detach().double().cpu())
        return {key: float(torch.cat(values).mean()) for key, values in found.items()}

    def note(self, map_11HW: Tensor, box_14: Tensor, height: int, width: int) -> str:
        """The score of one image, for the picture."""
        found = localisation_metrics(map_11HW.clamp(min=0), box_14, height, width)
        if "map_iou" not in found:
            return ""
        return f"IoU {found['map_iou']:.2f}"
