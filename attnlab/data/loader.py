"""The resident loader: the whole set as uint8 on the device, a batch = one gather and a few elementwise kernels.

No DataLoader, no workers, no transfer: Lightning takes any iterable with a length.

Legend: N images of the set, B of the batch, C channels, H height, W width, D values of a vector.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Self

import torch
from torch import Tensor

from attnlab.data.augment import Crops, EpochOrder, epoch_order, mirror, mirror_picks, normalise, pad_zeros, scale_and_bias

AT_ONCE_BYTES = {"cpu": 2**19, "cuda": 2**24}  # of fp32 images: half of a CPU's second cache, a third of a GPU's


def num_batches(num_images: int, batch_size: int, *, drop_last: bool, world_size: int = 1) -> int:
    """Batches of an epoch that each of `world_size` processes is given."""
    num, rest = divmod(num_images, world_size)
    num += 0 if drop_last or rest == 0 else 1
    return num // batch_size if drop_last else -(-num // batch_size)


class EpochLoader:
    """What the loaders share: batches of `(x, y_B)` on `device`, in an order that is a pure function of (seed, epoch).

    x is fp32, normalised, (B, C, H, W) in channels_last memory (or (B, D)); y int64. `shuffle=False` is evaluation: every image once, in
    order, unaugmented. With `world_size` > 1, process `rank` gets every world_size-th row of the common permutation: step k of all
    processes together is step k of one process with a batch world_size times as large. `batch_size` counts one process's images.

    With `with_index` a batch has a third part, the positions of its images in the split.

    `drawn_from`: positions of the images that a shuffled epoch draws from, each about equally often, as many in all as ever; None: all.

    `set_epoch` is called by Lightning before each epoch through `.sampler`; an epoch under way is not disturbed by it.
    """

    def __init__(
        self,
        labels_N: Tensor,
        shape: tuple[int, ...],
        *,
        batch_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        unit: float,
        device: torch.device | str,
        shuffle: bool = False,
        seed: int = 0,
        pad: int = 0,
        flip: bool = False,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ):
        if not 0 <= rank < world_size:
            raise ValueError(f"rank must be in [0, {world_size}), got {rank}")
        self.device = torch.device(device)
        self.labels_N = labels_N.to(self.device)
        self.shape, self.batch_size, self.shuffle, self.seed = shape, batch_size, shuffle, seed
        self.pad, self.flip = (pad, flip) if shuffle else (0, False)
        self.drop_last, self.rank, self.world_size = drop_last, rank, world_size
        self.scale, self.bias = scale_and_bias(mean, std, shape, unit=unit, device=self.device)
        self.epoch = 0
        self.with_index = False
        self.drawn_from: Tensor | None = None

    def __len__(self) -> int:
        return num_batches(len(self.labels_N), self.batch_size, drop_last=self.drop_last, world_size=self.world_size)

    @property
    def sampler(self) -> Self:
        """Lightning calls `loader.sampler.set_epoch(epoch)`."""
        return self

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def draw(self) -> EpochOrder:
        """The rows this process hands out in the current epoch, on the CPU."""
        num = len(self.labels_N)
        if self.shuffle:
            whole = epoch_order(num, seed=self.seed, epoch=self.epoch, pad=self.pad)
            if self.drawn_from is not None:
                whole = whole._replace(order_N=self.drawn_from[whole.order_N % len(self.drawn_from)])
        else:
            zeros = torch.zeros(num, dtype=torch.int64)
            whole = EpochOrder(torch.arange(num), zeros, zeros, zeros)
        return whole.shard(self.rank, self.world_size, even=self.drop_last)

    def batches(self, *columns_N: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """Columns of an epoch cut into batches: views, no kernel a step."""
        return itertools.islice(zip(*(column_N.split(self.batch_size) for column_N in columns_N)), len(self))

    def columns(self, order: EpochOrder) -> tuple[Tensor, ...]:
        """What goes with the images of an epoch: labels, and where asked for their positions."""
        labels_N = self.labels_N.index_select(0, order.order_N)
        return (labels_N, order.order_N) if self.with_index else (labels_N,)

    def finish(self, x_BHWC: Tensor, pick_B: Tensor) -> Tensor:
        """Cropped uint8 images -> mirrored, normalised batch."""
        if self.flip:
            x_BHWC = mirror(x_BHWC, pick_B)
        return normalise(x_BHWC.permute(0, 3, 1, 2), self.scale, self.bias)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        raise NotImplementedError


class ResidentLoader(EpochLoader):
    """Images (N, C, H, W) uint8, or vectors (N, D) fp32, copied to the device once (images with their black borders already on)."""

    def __init__(self, images: Tensor, labels_N: Tensor, **options):
        super().__init__(labels_N, tuple(images.shape[1:]), **options)
        images = images.to(self.device)
        self.crops = None
        if images.ndim == 4:
            images = images.permute(0, 2, 3, 1).contiguous()  # no copy where the memory is channels_last already
            if self.pad:
                images = pad_zeros(images, self.pad)
                self.crops = Crops(images, self.pad)
        self.images = images

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        return itertools.islice(self._batches(), len(self))

    def _batches(self) -> Iterator[tuple[Tensor, ...]]:
        # A generator: the epoch is read at the first batch, after Lightning's set_epoch, not when the iterator is made.
        order = self.draw().to(self.device)
        where_N = self.crops.first(order.order_N, order.dy_N, order.dx_N) if self.crops else order.order_N
        size = self.batch_size * self.at_once
        parts_N = (where_N, mirror_picks(order.flip_N, size), *self.columns(order))
        for where_B, pick_B, *columns in zip(*(part_N.split(size) for part_N in parts_N)):
            images = self.crops(where_B) if self.crops else self.images.index_select(0, where_B)
            x_B = self.finish(images, pick_B) if images.ndim == 4 else normalise(images, self.scale, self.bias)
            yield from zip(*(column_B.split(self.batch_size) for column_B in (x_B, *columns)))

    @property
    def at_once(self) -> int:
        """How many batches are made at a time: of small images several, as launching a kernel costs more than its work."""
        return max(1, AT_ONCE_BYTES.get(self.device.type, 2**19) // (4 * self.batch_size * math.prod(self.shape)))
