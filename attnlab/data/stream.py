"""The streaming loader for sets that do not fit in memory.

Worker processes decode and resize, no more; padding, cropping, mirroring and normalising happen on the device as in the resident loader
and from the same order and draws, so the two give the same batches bit for bit. Randomness inside a worker (`min_scale`) is a function of
(seed, epoch, image), never of the worker.

Legend: N images of the set, B of the batch, C channels, H height, W width.
"""

import weakref
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from attnlab.data.augment import Crops, mirror_picks, pad_zeros, stream_seed
from attnlab.data.images import FileSet, ImageSet
from attnlab.data.loader import EpochLoader


class _Decoder(torch.utils.data.Dataset):
    """What a worker holds: (epoch, index) -> uint8 (H, W, C). The epoch comes with the index because workers outlive epochs."""

    def __init__(self, source: ImageSet | FileSet, seed: int, min_scale: float):
        self.source, self.seed, self.transform = source, seed, None
        if min_scale:
            from torchvision.transforms import v2

            self.transform = v2.RandomResizedCrop(source.shape[1:], scale=(min_scale, 1.0), antialias=True)

    def __getitem__(self, item: tuple[int, int]) -> Tensor:
        epoch, index = item
        if self.transform is None:
            return torch.from_numpy(self.source.decoded(index).copy())
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: that would also seed the accelerator when there are no workers.
            torch.default_generator.manual_seed(stream_seed("sample", self.seed, epoch, index))
            image = self.transform(self.source.original(index))
        return torch.from_numpy(np.array(image)).view(*self.source.shape[1:], self.source.shape[0])


class StreamLoader(EpochLoader):
    """The loader for sets that do not fit: `num_workers` processes decode ahead, the rest happens on the device.

    `min_scale` > 0 (training only): torchvision's RandomResizedCrop with area scale (min_scale, 1), from the original image.
    """

    def __init__(self, source: ImageSet | FileSet, *, num_workers: int = 2, min_scale: float = 0.0, **options):
        super().__init__(source.labels, source.shape, **options)
        self.current = self.draw()
        self.loader = torch.utils.data.DataLoader(
            _Decoder(source, self.seed, min_scale if self.shuffle else 0.0),
            batch_sampler=_Requests(self),
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # its own: the global stream belongs to the network
        )

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        self.current = self.draw()
        order = self.current.to(self.device)
        rows_of = self.batches(order.dy_N, order.dx_N, mirror_picks(order.flip_N, self.batch_size), *self.columns(order))
        for images, (dy_B, dx_B, pick_B, *columns) in zip(self._decoded(), rows_of, strict=True):
            images = images.to(self.device, non_blocking=True)
            if self.pad:
                crops = Crops(pad_zeros(images, self.pad), self.pad)
                images = crops(crops.first(torch.arange(len(images), device=self.device), dy_B, dx_B))
            yield self.finish(images, pick_B), *columns

    def _decoded(self) -> Iterator[Tensor]:
        try:
            yield from self.loader
        except ValueError as error:  # from a worker it comes with the worker's traceback in the text; its last line is what was said
            raise ValueError(str(error).strip().splitlines()[-1].removeprefix("ValueError: ")) from error


class _Requests:
    """The batch sampler: what the workers are asked for, read from the loader's current order at every new epoch."""

    def __init__(self, loader: StreamLoader):
        # weak: a loader in a circle goes by the garbage collector, in whose disorder each worker is waited for in vain, 5 s
        self.loader = weakref.proxy(loader)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.loader.epoch
        for (order_B,) in self.loader.batches(self.loader.current.order_N):
            yield [(epoch, index) for index in order_B.tolist()]
