"""One to four different digits on a canvas: several labels an image, without a download.

Legend: N canvases, K classes, L label sets, H height, W width.
"""

import itertools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from attnlab.data.augment import stream_seed
from attnlab.data.base import ImageData, ImageSet
from attnlab.data.digits import digit_images, digit_split
from attnlab.data.task import SeveralLabels

CELLS = 4  # of a canvas, two by two
NUM_CLASSES = 10


@dataclass(kw_only=True, eq=False, repr=False)
class MultiDigits(ImageData):
    """Canvases of two by two cells of `cell` pixels, in which 1 to `most` scikit-learn digits stand, no two of a class; ours.

    The labels of an image are the classes on it: the task of `task: several labels` (see `attnlab.data.task`), for loss=sigmoid, with
    `test/map` and `test/f1_macro` among its metrics. How many digits, which, and where is random and uniform, deterministic in
    `split_seed`; no digit of the test canvases is in a training canvas. OOD set: `photos`.
    Raises ValueError: most outside 1..4, a cell below 8 pixels, fewer than 10 canvases.
    """

    name: ClassVar[str] = "multi_digits"
    several_labels: ClassVar[bool] = True

    cell: int = 16
    most: int = 3
    num_train: int = 4000
    num_test: int = 1000
    crop: int = 1
    ood: tuple[str, ...] = ("photos",)

    def __post_init__(self):
        super().__post_init__()
        if not 1 <= self.most <= CELLS:
            raise ValueError(f"most must be in 1..{CELLS}, one digit a cell, got {self.most}")
        if self.cell < 8:
            raise ValueError(f"cell must be at least 8 pixels, got {self.cell}")
        if min(self.num_train, self.num_test) < 10:
            raise ValueError("num_train and data.num_test must be at least 10")
        sizes = range(1, self.most + 1)
        self.sets = [chosen for size in sizes for chosen in itertools.combinations(range(NUM_CLASSES), size)]
        self.task: SeveralLabels = SeveralLabels(torch.tensor([[k in chosen for k in range(NUM_CLASSES)] for chosen in self.sets]))

    @property
    def num_labels(self) -> int:
        return len(self.sets)

    def load(self, split: str) -> ImageSet:
        num = self.num_train if split == "train" else self.num_test
        generator = torch.Generator().manual_seed(stream_seed("multi", split, self.split_seed))
        images, labels = digit_images(self.cell)
        rows = digit_split(split, labels, test=0.2, seed=self.split_seed)
        pools = [rows[labels[rows] == k] for k in range(NUM_CLASSES)]

        count_N = torch.randint(1, self.most + 1, (num,), generator=generator)
        classes_NK = torch.rand(num, NUM_CLASSES, generator=generator).argsort(1)  # the first `count` of a shuffle
        cells_NC = torch.rand(num, CELLS, generator=generator).argsort(1)
        pick_NC = torch.rand(num, CELLS, generator=generator)
        canvas_NHW = torch.zeros(num, 2 * self.cell, 2 * self.cell, dtype=torch.uint8)
        present_NK = torch.zeros(num, NUM_CLASSES, dtype=torch.bool)
        for slot in range(self.most):
            for k, pool in enumerate(pools):
                here = ((classes_NK[:, slot] == k) & (slot < count_N)).nonzero()[:, 0]
                glyphs = images[pool[(pick_NC[here, slot] * len(pool)).long()], 0]
                present_NK[here, k] = True
                self._paste(canvas_NHW, here, glyphs, cells_NC[here, slot])
        number = {chosen: index for index, chosen in enumerate(self.sets)}
        labels_N = torch.tensor([number[tuple(row.nonzero()[:, 0].tolist())] for row in present_NK])
        x_N1HW = canvas_NHW[:, None].contiguous(memory_format=torch.channels_last)
        return ImageSet(x_N1HW, labels_N, None, tuple(str(digit) for digit in range(NUM_CLASSES)))

    def _paste(self, canvas_NHW: Tensor, rows: Tensor, glyphs: Tensor, cell_R: Tensor) -> None:
        cells = canvas_NHW.view(len(canvas_NHW), 2, self.cell, 2, self.cell)
        cells[rows, cell_R // 2, :, cell_R % 2] = glyphs
