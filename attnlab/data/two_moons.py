"""Two interleaved half circles in the plane: the toy of uncertainty figures.

Legend: N points, 2 coordinates.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attnlab.data.augment import stream_seed
from attnlab.data.base import ImageData, ImageSet
from attnlab.data.benchmarks import Sets

CENTRE = (0.5, 0.25)  # of the two moons together; they reach 1.6 from it


@dataclass(kw_only=True, eq=False, repr=False)
class TwoMoons(ImageData):
    """scikit-learn's make_moons: `num_train` and `num_test` points, two classes, Gaussian `noise` (standard deviation).

    Float vectors of shape (2,), no images. OOD sets: `ring` (uniform on the annulus of radius 3 to 5 around the moons), `far` (uniform
    on the square of half side 6, at least 1 from every training point; that includes the gap's surroundings, not the gap itself).
    """

    name: ClassVar[str] = "two_moons"

    num_train: int = 1000
    num_test: int = 1000
    noise: float = 0.1
    ood: Sets = ("ring", "far")

    def __post_init__(self):
        super().__post_init__()
        if min(self.num_train, self.num_test) < 2:
            raise ValueError("num_train and data.num_test must be at least 2, one a class")
        if self.noise < 0:
            raise ValueError(f"noise is a standard deviation, at least 0, got {self.noise}")
        if self.crop or self.flip:
            raise ValueError("crop and data.flip are for images; two_moons has points")

    def load(self, split: str) -> ImageSet:
        from sklearn.datasets import make_moons

        num = self.num_train if split == "train" else self.num_test
        points, labels = make_moons(num, noise=self.noise, random_state=stream_seed("moons", split, self.split_seed) % 2**32)
        return ImageSet(torch.from_numpy(points).float(), torch.from_numpy(labels).long(), None, ("upper", "lower"))

    def own_ood(self) -> dict[str, Callable[[], ImageSet]]:
        return {"ring": self._ring, "far": self._far}

    def _ring(self) -> ImageSet:
        u_N2 = torch.rand(self.num_test, 2, generator=self._generator("ring"))
        radius = (9 + 16 * u_N2[:, 0]).sqrt()  # uniform in area
        angle = 2 * math.pi * u_N2[:, 1]
        return _unlabelled(torch.stack([radius * angle.cos(), radius * angle.sin()], 1) + torch.tensor(CENTRE))

    def _far(self) -> ImageSet:
        points = self.split("train").in_memory().images
        u_N2 = torch.rand(2 * self.num_test + 100, 2, generator=self._generator("far"))  # the moons take less than a tenth
        drawn = (u_N2 * 2 - 1) * 6 + torch.tensor(CENTRE)
        return _unlabelled(drawn[torch.cdist(drawn, points).amin(1) >= 1][: self.num_test])

    def _generator(self, purpose: str) -> torch.Generator:
        return torch.Generator().manual_seed(stream_seed("moons", purpose, self.split_seed))


def _unlabelled(points_N2: Tensor) -> ImageSet:
    return ImageSet(points_N2, torch.full((len(points_N2),), -1))
