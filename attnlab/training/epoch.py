"""An epoch: its batches, several optimisation steps in one call of Lightning's loop, and sums that stay on the device until its end."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """x: images (B, C, H, W); y: labels (B,), -1 where there is none; index: positions in the training split (B,), where something asks
    for it; views: further augmentations of the same images."""

    x: Tensor
    y: Tensor
    index: Tensor | None = None
    views: tuple[Tensor, ...] = ()


class StepChunks:
    """A loader whose items are iterators over `size` batches of another: one call of Lightning's loop for many optimisation steps."""

    def __init__(self, loader: Any, size: int = 128) -> None:
        self.loader = loader
        self.size = size

    def __len__(self) -> int:
        return -(-len(self.loader) // self.size)

    def __iter__(self) -> Iterator[Iterator[tuple[Tensor, ...]]]:
        batches = iter(self.loader)
        for _ in range(len(self)):
            yield itertools.islice(batches, self.size)

    @property
    def sampler(self) -> Any:
        """Lightning calls `loader.sampler.set_epoch(epoch)`."""
        return self.loader


@dataclass
class EpochSums:
    """What an epoch has come to. Apart from the module, as setting an attribute of an nn.Module costs as much as a small kernel."""

    steps: int = 0  # since the start of training
    images: int = 0
    names: tuple[str, ...] = ()  # of the loss terms
    watched: tuple[str, ...] = ()  # of what placed modules want logged
    sums: Tensor | None = None  # (T,) fp64 on the device, of both
    correct: Tensor | None = None
    started: float = 0.0

    def add(self, values_T: Tensor, correct: Tensor, num_images: int) -> None:
        """One step more; nothing is read from the device."""
        if self.sums is None:
            self.sums, self.correct = values_T.double(), correct.clone()
        else:
            self.sums += values_T
            self.correct += correct
        self.images += num_images
        self.steps += 1
