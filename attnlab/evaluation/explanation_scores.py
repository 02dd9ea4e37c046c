"""The scores of `evaluator.explanations.scores`, each of a batch of maps: name -> function that gives (B,) a score and (B, S) a curve.

Legend: B batch, C channels, H, W image size, S points of a curve, R draws.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attnlab.data.base import ImageData
from attnlab.evaluation.attribution_scores import class_sensitivity, infidelity, max_sensitivity, sparseness
from attnlab.evaluation.faithfulness import aupc, autvc, deletion_insertion
from attnlab.evaluation.randomisation import randomisation, randomised
from attnlab.evaluation.road import road

PAPER = 224  # pixels a side of the images that windows and levels of published scores are meant for


class Subject:
    """The network that is explained and its data, with what the scores of all explainers share."""

    def __init__(self, network: nn.Module, data: ImageData, device: torch.device) -> None:
        self.network, self.data, self.device = network, data, device

    @functools.cached_property
    def randomised(self) -> list[nn.Module]:
        return randomised(self.network, torch.zeros(1, *self.data.shape, device=self.device))


class Explained(NamedTuple):
    """A batch whose maps are scored. map: its magnitude, larger = more relevant; signed_B1HW: as the explainer gave it."""

    subject: Subject
    explainer: Any
    x_BCHW: Tensor
    map_B1HW: Tensor
    signed_B1HW: Tensor
    target_B: Tensor

    @property
    def network(self) -> nn.Module:
        return self.subject.network

    def noise(self, num: int, size: float) -> Tensor:
        """Normal noise (num, B, C, H, W), the same for every image and explainer."""
        noise = torch.randn(num, 1, *self.x_BCHW.shape[1:], generator=torch.Generator().manual_seed(0))
        return size * noise.to(self.x_BCHW).expand(-1, len(self.x_BCHW), -1, -1, -1)


def _deletion_insertion(one: Explained) -> dict[str, Tensor]:
    return deletion_insertion(one.network, one.x_BCHW, one.map_B1HW, target_B=one.target_B)._asdict()


def _deletion_insertion_mean(one: Explained) -> dict[str, Tensor]:
    found = deletion_insertion(one.network, one.x_BCHW, one.map_B1HW, target_B=one.target_B, insert_into="mean")
    return {"insertion_mean": found.insertion}


def _aupc(one: Explained) -> dict[str, Tensor]:
    """The authors' windows relative to the image's size, 11 fillings."""
    side = min(one.x_BCHW.shape[2:])
    kernel = max(3, round(15 * side / PAPER))
    num_regions = max(1, min(30, (side - kernel) ** 2 // (2 * kernel - 1) ** 2))  # so many always fit
    mean, std = one.subject.data.moments()
    options = {"kernel": kernel, "num_regions": num_regions, "num_fills": 11}
    return {"aupc": aupc(one.network, one.x_BCHW, one.map_B1HW, one.target_B, mean=mean, std=std, **options)}


def _autvc(one: Explained) -> dict[str, Tensor]:
    return {"autvc": autvc(one.map_B1HW, smallest=math.ceil(30 * min(one.x_BCHW.shape[2:]) / PAPER))}


def _class_sensitivity(one: Explained) -> dict[str, Tensor]:
    """Over the first five classes at most, of signed maps."""
    classes = range(min(5, one.subject.data.num_classes))
    maps = [one.explainer.explain(one.network, one.x_BCHW, torch.full_like(one.target_B, c)).detach() for c in classes]
    return {"class_sensitivity": class_sensitivity(torch.stack(maps))}


def _sparseness(one: Explained) -> dict[str, Tensor]:
    return {"sparseness": sparseness(one.map_B1HW)}


def _road(one: Explained) -> dict[str, Tensor]:
    return {"road": road(one.network, one.x_BCHW, one.map_B1HW, one.target_B)}


def _randomisation(one: Explained) -> dict[str, Tensor]:
    return {"randomisation": randomisation(one.subject.randomised, one.explainer, one.x_BCHW, one.map_B1HW, one.target_B)}


def _infidelity(one: Explained) -> dict[str, Tensor]:
    """20 draws of noise of 0.2, each map at its best scale; a map stands for each of its pixel's channels alike."""
    found = infidelity(one.network, one.x_BCHW, one.signed_B1HW, one.target_B, noise_RBCHW=one.noise(20, 0.2), normalise=True)
    return {"infidelity": found}


def _max_sensitivity(one: Explained) -> dict[str, Tensor]:
    """5 draws of noise of 0.1."""
    return {"max_sensitivity": max_sensitivity(one.explainer.explain, one.network, one.x_BCHW, one.target_B, noise_RBCHW=one.noise(5, 0.1))}


SCORES: dict[str, Callable[[Explained], dict[str, Tensor]]] = {
    "deletion_insertion": _deletion_insertion,
    "insertion_mean": _deletion_insertion_mean,
    "aupc": _aupc,
    "autvc": _autvc,
    "class_sensitivity": _class_sensitivity,
    "sparseness": _sparseness,
    "road": _road,
    "randomisation": _randomisation,
    "infidelity": _infidelity,
    "max_sensitivity": _max_sensitivity,
}
