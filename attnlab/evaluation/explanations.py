"""Explanations: the maps of the chosen explainers over test images, drawn and scored against true boxes.

Legend: B batch, N images, C channels, H, W image size, S points of a curve.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from attnlab.config.suggest import nearest
from attnlab.data.images import ImageSet
from attnlab.evaluation.explanation_scores import SCORES, Explained, Subject
from attnlab.evaluation.localisation import best_threshold_iou, box_mask, localisation_metrics, relevance_rank_accuracy
from attnlab.evaluation.trained import TEST, Incomplete, Trained

log = logging.getLogger("attnlab")

NAMES = {"pointing": "pointing", "energy": "energy", "map_iou": "iou"}  # of localisation_metrics, and as they are recorded
BATCH = 32


class Explanations:
    """`explain/<explainer>/<metric>` of every explainer of `explainer=[...]`, `figures/explanations.png` and `figures/faithfulness.png`.

    An explainer is any object with `explain(network, x_BCHW, target_B) -> map_B1HW`, larger = more relevant; one that says `signed = True`
    gives maps with a sign, which are scored by their magnitude and drawn with it. It may have `prepare(trained)`, called once before it
    explains, and `parts(network) -> {word: explainer}`, where it is several: `attention` is one a placed module, and its metrics
    `explain/attention/rect@layer2/<metric>`. `explain/<explainer>/seconds`, mean time an image, is among the record's timings, as two
    equal runs differ in it; a table shows it by that key all the same.

    Where the test images have boxes, over `num_scored` images and of those with one: `pointing`, `energy`, `iou`, `iou_best` and
    `rank_accuracy` of `attnlab.evaluation.localisation`, all higher is better; negative relevance counts as none. On `num_perturbed`
    images the means of `scores`, each with its direction, range and limits in its own docstring (`evaluation.faithfulness`, `.road`,
    `.randomisation`, `.attribution_scores`):

        deletion_insertion   `deletion` (lower), `insertion` (higher): 2 (W + 1) passes an image
        insertion_mean       (higher) insertion into the mean colour instead of a blurred image: 2 (W + 1)
        aupc                 (lower) some 330 passes
        road                 (higher) 18 passes, and the imputation
        randomisation        (lower) four explanations, by networks with ever more layers shuffled
        class_sensitivity    (lower) five explanations
        infidelity           (lower) 21 passes
        max_sensitivity      (lower) six explanations
        autvc, sparseness    (lower; neither) no pass

    The images are the same for every explainer of every run: a stratified choice by `seed`.

    Args:
        num_images: how many are drawn, at least 1.
        num_scored: how many are explained where there are boxes, at least `num_images`.
        scores: which of the above.
        num_perturbed: on how many of the images these are taken; 0: none.
        target: the class that is explained, the `predicted` one or the `label`.
        seed: of the choice of images.

    Nothing is done without explainers. An explainer that is finished is kept at once: a run that is killed goes on with the next.
    Raises Incomplete: an explainer that fails costs its own metrics only. ValueError: data that are no images; maps that are not
    (B, 1, H, W) or not finite.
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
        if not trained.explainers:
            return {}
        if len(trained.data.shape) != 3:
            raise ValueError(f"explanations are of images, {trained.data.name} has values of shape {trained.data.shape}")
        boxed = trained.data.split(TEST).boxes is not None
        num = max(self.num_scored if boxed else self.num_images, self.num_perturbed)
        chosen_N, images = trained.choice(TEST, num, seed=self.seed)
        guessed_N = trained.logits(TEST)[0][chosen_N].argmax(1)
        target_N = guessed_N if self.target == "predicted" else images.labels
        subject = Subject(trained.network, trained.data, trained.settings.device)
        metrics: dict[str, float] = {}
        maps: dict[str, Tensor] = {}
        per_image: dict[str, dict[str, Tensor]] = {}
        errors, signed = [], set()
        for name, explainer in trained.explainers.items():
            found = trained.kept(name)
            if found is None:
                found = self.all_of(name, explainer, trained, subject, images, target_N)
                if not found["errors"]:
                    trained.keep(name, found)
            metrics |= found["metrics"]
            trained.timings |= found["timings"]
            maps |= found["maps"]
            per_image |= found["per_image"]
            errors += found["errors"]
            signed |= set(found["signed"])
        self.draw(trained, images, guessed_N, maps, signed, per_image)
        if errors:
            raise Incomplete("; ".join(errors), metrics)
        return metrics

    def all_of(self, name: str, explainer: Any, trained: Trained, subject: Subject, images: ImageSet, target_N: Tensor) -> dict[str, Any]:
        """What there is to know of one explainer, plain: `metrics`, `timings`, `maps` and `per_image` by the names of its parts, `signed`:
        those with a sign; `errors`: a part that fails costs its own metrics only."""
        found: dict[str, Any] = {"metrics": {}, "timings": {}, "maps": {}, "per_image": {}, "signed": [], "errors": []}
        boxed = images.boxes is not None
        for part, explains, error in _parts(name, explainer, trained):
            try:
                if error:
                    raise error
                log.info("explain: %s, %s images", part, f"{len(images):,}")
                start = time.monotonic()
                signed_N1HW = self.explain(trained, explains, images.images, target_N)
                found["timings"][f"explain/{part}/seconds"] = (time.monotonic() - start) / len(images)
                if getattr(explains, "signed", False):
                    found["signed"].append(part)
                maps_N1HW = signed_N1HW.abs() if part in found["signed"] else signed_N1HW
                located = self.located(maps_N1HW, images) if boxed else {}
                found["maps"][part], found["per_image"][part] = signed_N1HW[: self.num_images].clone(), {}
                found["metrics"] |= {f"explain/{part}/{key}": value for key, value in located.items()}
                values = self.scored(subject, explains, images.images, signed_N1HW, maps_N1HW, target_N)
                found["per_image"][part] = values
                found["metrics"] |= {f"explain/{part}/{key}": float(one.mean()) for key, one in values.items() if one.ndim == 1}
            except Exception as error:
                log.warning("explain: %s failed: %s", part, error)
                found["errors"].append(f"explainer.{part}: {type(error).__name__}: {error}")
        return found

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

    def located(self, maps_N1HW: Tensor, images: ImageSet) -> dict[str, float]:
        """How well the maps find the boxes: means over the images with one."""
        height, width = images.images.shape[2:]
        maps_N1HW = maps_N1HW.clamp(min=0)
        found = localisation_metrics(maps_N1HW, images.boxes, height, width)
        if not found["images"]:
            return {}
        ranked_N = relevance_rank_accuracy(maps_N1HW, box_mask(images.boxes, height, width))
        more = {"iou_best": best_threshold_iou(maps_N1HW, images.boxes, height, width), "rank_accuracy": float(ranked_N.nanmean())}
        return {NAMES[key]: value for key, value in found.items() if key in NAMES} | more

    def scored(
        self, subject: Subject, explainer: Any, images: Tensor, signed_N1HW: Tensor, maps_N1HW: Tensor, target_N: Tensor
    ) -> dict[str, Tensor]:
        """`scores` (N,) and curves (N, S) of the first `num_perturbed` images, batch by batch."""
        device, found, first = subject.device, {}, slice(self.num_perturbed)
        batches = (values[first].split(BATCH) for values in (images, signed_N1HW, maps_N1HW, target_N))
        for part, signed, map_B1HW, target_B in zip(*batches):
            x = subject.data.normalise(part).to(device)
            one = Explained(subject, explainer, x, map_B1HW.to(device), signed.to(device), target_B.to(device))
            for name in self.scores:
                for key, value in SCORES[name](one).items():
                    found.setdefault(key, []).append(value.detach().double().cpu())
        return {key: torch.cat(values) for key, values in found.items()}

    def draw(
        self,
        trained: Trained,
        images: ImageSet,
        guessed_N: Tensor,
        maps: dict[str, Tensor],
        signed: set[str],
        per_image: dict[str, dict[str, Tensor]],
    ) -> None:
        from attnlab import figures

        shown = images.subset(torch.arange(min(self.num_images, len(images))))
        classes = trained.data.classes
        drawing = {
            "boxes_N4": shown.boxes,
            "titles": [f"{classes[label]}\n→ {classes[guess]}" for label, guess in zip(shown.labels.tolist(), guessed_N.tolist())],
            "correct": (shown.labels == guessed_N[: len(shown)]).tolist(),
            "notes": {name: self.notes(maps[name].abs() if name in signed else maps[name], shown, per_image[name]) for name in maps},
            "signed": signed,
        }
        figures.explanation_grid(shown.images, maps, path=trained.picture("explanations.png", "explanation"), **drawing)
        figures.explanations_of_one(shown.images, maps, path=trained.picture("explanations_of_one.png", "explanation"), **drawing)
        curves = {
            name: {kind: found[f"{kind}_curve"] for kind in ("deletion", "insertion")}
            for name, found in per_image.items()
            if "deletion_curve" in found
        }
        figures.faithfulness_curves(curves, path=trained.picture("faithfulness.png", "faithfulness"))

    def notes(self, maps_N1HW: Tensor, shown: ImageSet, found: dict[str, Tensor]) -> list[str]:
        """The score of each image that is drawn: IoU with its box, where one is known, else deletion's area."""
        height, width = shown.images.shape[2:]
        texts = []
        for i in range(len(shown)):
            alone = {}
            if shown.boxes is not None:
                alone = localisation_metrics(maps_N1HW[i : i + 1].clamp(min=0), shown.boxes[i : i + 1], height, width)
            if "map_iou" in alone:
                texts.append(f"IoU {alone['map_iou']:.2f}")
            else:
                texts.append(f"del. {float(found['deletion'][i]):.2f}" if len(found.get("deletion", ())) > i else "")
        return texts


def _parts(name: str, explainer: Any, trained: Trained) -> Iterator[tuple[str, Any, Exception | None]]:
    """An explainer under its name, one of several parts part by part; and what one that cannot begin raises."""
    try:
        if hasattr(explainer, "prepare"):
            explainer.prepare(trained)
        parts = explainer.parts(trained.network) if hasattr(explainer, "parts") else {"": explainer}
    except Exception as error:
        yield name, explainer, error
        return
    for word, part in parts.items():
        yield f"{name}/{word}" if word else name, part, None
