"""Digits of three sizes on a larger canvas, among fragments of other digits; the box of every digit is known.

The task for attention: find the digit, ignore the fragments. After the cluttered MNIST of Mnih et al. 2014 (arXiv:1406.6247), with
scikit-learn's embedded digits. Our reading: sizes 14, 20 and 26, eight 6x6 fragments, 40x40 canvas.

Legend: N canvases, S pixels of a pasted square (side x side), F fragments per canvas.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attnlab.data.augment import stream_seed
from attnlab.data.base import ImageData, ImageSet
from attnlab.data.benchmarks import Sets
from attnlab.data.digits import digit_images, digit_split

INK = 32  # grey levels below this are wiped from an enlarged digit, so that its box is the extent of what can be seen


@dataclass(kw_only=True, eq=False, repr=False)
class ClutteredDigits(ImageData):
    """`num_train` and `num_test` canvases, deterministic in `split_seed`; no digit of the test canvases, and no fragment of one, is in
    a training canvas. `boxes` are the exact extents of the digits' ink. OOD sets: `photos`, and `clutter` (canvases without a digit).
    """

    name: ClassVar[str] = "cluttered_digits"

    canvas: int = 40
    sizes: tuple[int, ...] = (14, 20, 26)
    num_fragments: int = 8
    fragment: int = 6
    num_train: int = 6000
    num_test: int = 1000
    ood: Sets = ("photos", "clutter")

    def __post_init__(self):
        super().__post_init__()
        self.sizes = tuple(self.sizes)
        if not self.sizes or min(self.sizes) < 8 or max(self.sizes) > self.canvas:
            raise ValueError(f"sizes must lie between 8 and the canvas of {self.canvas} pixels, got {list(self.sizes)}")
        if self.num_fragments < 0 or not 1 <= self.fragment <= min(self.sizes):
            raise ValueError(f"fragment must be in [1, {min(self.sizes)}] and data.num_fragments not negative")
        if min(self.num_train, self.num_test) < 10:
            raise ValueError("num_train and data.num_test must be at least 10, one a class")

    def load(self, split: str) -> ImageSet:
        return self._canvases(split, digits=True)

    def own_ood(self) -> dict[str, Callable[[], ImageSet]]:
        return {**super().own_ood(), "clutter": lambda: self._canvases("test", digits=False)}

    def _canvases(self, split: str, *, digits: bool) -> ImageSet:
        num = self.num_train if split == "train" else self.num_test
        generator = torch.Generator().manual_seed(stream_seed("cluttered", split, digits, self.split_seed))
        images, labels = digit_images(8)
        rows = digit_split(split, labels, test=0.2, seed=self.split_seed)
        glyphs = [_enlarged(images[rows], size) for size in self.sizes]  # one (M, size, size) each

        which_N = torch.randint(len(rows), (num,), generator=generator)
        kind_N = torch.randint(len(self.sizes), (num,), generator=generator)
        canvas_NHW = torch.zeros(num, self.canvas, self.canvas, dtype=torch.uint8)
        boxes_N4 = torch.zeros(num, 4)
        for kind, size in enumerate(self.sizes):
            here = (kind_N == kind).nonzero()[:, 0]
            corner = torch.randint(self.canvas - size + 1, (len(here), 2), generator=generator)
            if digits:
                ink = glyphs[kind][which_N[here]]
                _paste(canvas_NHW, here, ink, corner)
                boxes_N4[here] = _extent(ink) + corner.flip(1).repeat(1, 2)
        for _ in range(self.num_fragments):
            pieces = _fragments(glyphs, num, self.fragment, generator)
            corner = torch.randint(self.canvas - self.fragment + 1, (num, 2), generator=generator)
            _paste(canvas_NHW, torch.arange(num), pieces, corner)
        classes = tuple(str(digit) for digit in range(10))
        x_N1HW = canvas_NHW[:, None].contiguous(memory_format=torch.channels_last)
        return ImageSet(x_N1HW, labels[rows][which_N], boxes_N4 if digits else None, classes)


def _enlarged(images_N1HW: Tensor, size: int) -> Tensor:
    x = torch.nn.functional.interpolate(images_N1HW.float(), size=(size, size), mode="bilinear")[:, 0].round()
    return torch.where(x < INK, 0, x).to(torch.uint8)


def _fragments(glyphs: list[Tensor], num: int, side: int, generator: torch.Generator) -> Tensor:
    """(num, side, side) pieces of random digits, centred on a random spot of ink."""
    pieces = torch.zeros(num, side, side, dtype=torch.uint8)
    kind_N = torch.randint(len(glyphs), (num,), generator=generator)
    for kind, glyph_MHW in enumerate(glyphs):
        here = (kind_N == kind).nonzero()[:, 0]
        size = glyph_MHW.shape[1]
        digit = glyph_MHW[torch.randint(len(glyph_MHW), (len(here),), generator=generator)]
        spot = torch.multinomial(digit.flatten(1).float(), 1, generator=generator)[:, 0]
        y = (spot // size - side // 2).clamp(0, size - side)
        x = (spot % size - side // 2).clamp(0, size - side)
        pieces[here] = digit.flatten(1).gather(1, _square(torch.stack([y, x], 1), side, size)).view(-1, side, side)
    return pieces


def _square(corner_N2: Tensor, side: int, width: int) -> Tensor:
    """Flat indices (N, S) of squares with top left corners (y, x) in images `width` wide."""
    step = torch.arange(side)
    offset_S = (step[:, None] * width + step).flatten()
    return (corner_N2[:, 0] * width + corner_N2[:, 1])[:, None] + offset_S


def _paste(canvas_NHW: Tensor, rows: Tensor, patches: Tensor, corner_N2: Tensor) -> None:
    """Brighter wins, in place."""
    flat = canvas_NHW.view(len(canvas_NHW), -1)
    index = _square(corner_N2, patches.shape[1], canvas_NHW.shape[2])
    part = flat[rows]
    flat[rows] = part.scatter(1, index, torch.maximum(part.gather(1, index), patches.flatten(1)))


def _extent(ink_NHW: Tensor) -> Tensor:
    """(N, 4) float x0, y0, x1, y1: edges around the pixels above 0."""
    sides = []
    for any_NL in ((ink_NHW > 0).any(1), (ink_NHW > 0).any(2)):  # columns, rows
        seen = any_NL.int()
        sides.append((seen.argmax(1), seen.shape[1] - seen.flip(1).argmax(1)))
    (x0, x1), (y0, y1) = sides
    return torch.stack([x0, y0, x1, y1], 1).float()
