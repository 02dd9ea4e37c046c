"""An epoch: several optimisation steps in one call of Lightning's loop, and the sums that stay on the device until its end."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor


class StepChunks:
    """A loader whose items are iterators over `size` batches of another: one call of Lightning's loop for many optimisation steps."""

    def __init__(self, loader: Any, size: int = 128) -> None:
        self.loader = loader
        self.size = size

    def __len__(self) -> int:
        return -(-len(self.loader) // self.size)

    def __iter__(self) -> Iterator[Iterator[tuple[Tensor, Tensor]]]:
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
