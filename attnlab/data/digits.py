"""scikit-learn's 1,797 handwritten digits, the data set that is always there: no download, seconds to train on.

Legend: N images, H height, W width.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attnlab.data import shipped
from attnlab.data.augment import stream_seed
from attnlab.data.base import ImageData, ImageSet
from attnlab.data.benchmarks import Sets
from attnlab.data.colour import in_colours
from attnlab.data.protocols import stratified_order


@functools.cache
def as_stored() -> tuple[Tensor, Tensor]:
    """All digits, fp32 (1797, 8, 8) of 0..16, and their labels: half a megabyte, parsed from text once and not for every split."""
    images_NHW, labels_N = shipped.digits()
    return torch.from_numpy(images_NHW).float(), torch.from_numpy(labels_N).long()


def digit_images(size: int) -> tuple[Tensor, Tensor]:
    """All digits, grey uint8 (1797, 1, size, size) bilinear from 8x8, and their labels."""
    images_NHW, labels_N = as_stored()
    images_N1HW = images_NHW[:, None] * (255 / 16)
    if size != 8:
        images_N1HW = torch.nn.functional.interpolate(images_N1HW, size=(size, size), mode="bilinear")
    images_N1HW = images_N1HW.round().to(torch.uint8).contiguous(memory_format=torch.channels_last)
    return images_N1HW, labels_N.clone()


def digit_split(split: str, labels_N: Tensor, *, test: float, seed: int) -> Tensor:
    """Indices of the train or test digits: stratified, the rest is `train`."""
    order_N = stratified_order(labels_N, seed)
    num_test = round(test * len(labels_N))
    return (order_N[:num_test] if split == "test" else order_N[num_test:]).sort().values


@dataclass(kw_only=True, eq=False, repr=False)
class Digits(ImageData):
    """UCI digits (8x8, 16 grey levels) enlarged to `size`; a fraction `test` of each class is the test split, fixed by `split_seed`.

    holdout: digits left out of training and testing altogether; the OOD set `heldout` is all their images. The remaining classes
    are numbered anew from 0. OOD sets: `photos`, and `heldout`.
    """

    name: ClassVar[str] = "digits"

    batch_size: int = 64
    size: int = 16
    test: float = 0.2
    holdout: tuple[int, ...] = ()
    crop: int = 1
    ood: Sets = ("photos",)

    def __post_init__(self):
        super().__post_init__()
        self.holdout = tuple(self.holdout)
        if self.size < 8:
            raise ValueError(f"size must be at least 8 pixels, got {self.size}")
        if not 0 < self.test < 1:
            raise ValueError(f"test is a fraction in (0, 1), got {self.test}")
        if len(set(self.holdout)) != len(self.holdout) or not set(self.holdout) <= set(range(10)) or len(self.holdout) > 8:
            raise ValueError(f"holdout takes up to 8 different digits of 0..9, got {list(self.holdout)}")

    def load(self, split: str) -> ImageSet:
        images, labels = digit_images(self.size)
        rows = digit_split(split, labels, test=self.test, seed=self.split_seed)
        kept = [digit for digit in range(10) if digit not in set(self.holdout)]
        number = torch.full((10,), -1)
        number[kept] = torch.arange(len(kept))
        rows = rows[number[labels[rows]] >= 0]
        return ImageSet(images, number[labels], None, tuple(str(digit) for digit in kept)).subset(rows)

    def own_ood(self) -> dict[str, Callable[[], ImageSet]]:
        return {**super().own_ood(), **({"heldout": self._heldout} if self.holdout else {})}

    def _heldout(self) -> ImageSet:
        images, labels = digit_images(self.size)
        rows = torch.isin(labels, torch.tensor(list(self.holdout))).nonzero()[:, 0]
        found = ImageSet(images, labels).subset(rows)
        return found if self.colour_bias is None else in_colours(found, 0.5, stream_seed("colour", "heldout", self.split_seed))
