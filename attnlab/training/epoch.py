"""An epoch: its batches, several optimisation steps in one call of Lightning's loop, and sums that stay on the device until its end."""

import itertools
import math
import time
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

    def row(self, values: list[float], *, epoch: int, count: int, world_size: int, rate: float) -> dict[str, float]:
        """The epoch's figures. values: the sums of all processes and how many were right; count: batches of all processes.

        ValueError, with a remedy: a term that is not finite.
        """
        seconds, images = time.monotonic() - self.started, self.images * world_size
        averages = {name: value / count for name, value in zip(self.names, values)}
        if bad := [name for name, value in averages.items() if not math.isfinite(value)]:
            raise ValueError(
                f"loss term {' and '.join(bad)} became {averages[bad[0]]} in epoch {epoch + 1}; lower optimizer.lr "
                f"(now {rate:.3g}) or set trainer.gradient_clip=1; epochs before it are kept"
            )
        row = {"epoch": epoch, "train/loss": sum(averages.values())}
        row |= {f"train/loss/{name}": value for name, value in averages.items()} if len(averages) > 1 else {}
        row |= {f"train/{name}": value / count for name, value in zip(self.watched, values[len(self.names) :])}
        row |= {"train/acc": values[-1] / max(images * row.get("train/labelled", 1), 1), "lr": rate}  # of labelled images
        return {**row, "seconds": seconds, "images_per_second": images / max(seconds, 1e-9)}
