"""Predictions: single test images as a reviewer wants to see them, one a row, with what the network said and where it looked.

Legend: N test images, M of them shown, K classes.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlab.data.base import stratified_order
from attnlab.evaluation.trained import TEST, Trained

MOST_MAPS = 2  # placed modules whose attention is shown: the deepest
SIDE = 256  # pixels of a picture's longer side, at most
MISTAKE, SAMPLE = "mistake", "sample"


def predictions(trained: Trained, num: int) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows of `num` test images (all, if there are fewer); no rows for data that are no images.

    Half of the rows, at most, are mistakes, the most confident first; the others are images of every class in proportion that are the same
    in every run on the data. Columns: why the image is here, its position in the test set, the image, the image under the attention of
    each of the last two placed modules with a map, class names of label and prediction, confidence (the largest softmax probability), and
    the score of every OOD head, larger = more OOD. Pictures are arrays (H, W, 3) of uint8.
    """
    from attnlab.figures.attention import under_maps
    from attnlab.figures.overlay import coloured

    logits_NK, labels_N = trained.logits(TEST)
    if len(trained.data.shape) != 3 or not num:
        return [], []
    confidence_N, guess_N = logits_NK.float().softmax(1).max(1)
    chosen_M, num_mistakes = choose(confidence_N, guess_N == labels_N, stratified_order(labels_N, 0), num)
    images_MCHW = _bounded(trained.data.split(TEST).subset(chosen_M).in_memory().images)
    columns = {"why": [MISTAKE] * num_mistakes + [SAMPLE] * (len(chosen_M) - num_mistakes), "position": chosen_M.tolist()}
    columns["image"] = [_bytes(image) for image in coloured(images_MCHW)[0]]
    maps, _ = trained.attention_over(chosen_M)
    for key, maps_M1HW in list(maps.items())[-MOST_MAPS:]:
        columns[f"attention of {key}"] = [_bytes(image) for image in under_maps(images_MCHW, maps_M1HW)[1]]
    for name, found_N in (("label", labels_N), ("prediction", guess_N)):
        columns[name] = [trained.data.classes[k] for k in found_N[chosen_M].tolist()]
    columns["confidence"] = confidence_N[chosen_M].tolist()
    for head, sets in trained.scores.items():
        columns[f"ood/{head}"] = [value if math.isfinite(value) else None for value in sets[TEST][chosen_M].tolist()]
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def choose(confidence_N: Tensor, right_N: Tensor, order_N: Tensor, num: int) -> tuple[Tensor, int]:
    """Positions of `num` images and how many of them are mistakes: up to half by confidence, the rest in `order_N`."""
    by_confidence_N = confidence_N.argsort(descending=True, stable=True)
    mistakes = by_confidence_N[~right_N[by_confidence_N]][: num // 2]
    rest = order_N[~torch.isin(order_N, mistakes)][: num - len(mistakes)]
    return torch.cat([mistakes, rest]), len(mistakes)


def _bounded(images_NCHW: Tensor) -> Tensor:
    """uint8; larger ones reduced."""
    side = max(images_NCHW.shape[2:])
    if side <= SIDE:
        return images_NCHW
    size = [max(1, round(length * SIDE / side)) for length in images_NCHW.shape[2:]]
    return F.interpolate(images_NCHW.float(), size, mode="bilinear", antialias=True).round().clamp(0, 255).to(torch.uint8)


def _bytes(image_HW3: Any) -> Any:
    return (image_HW3 * 255).round().clip(0, 255).astype("uint8")
