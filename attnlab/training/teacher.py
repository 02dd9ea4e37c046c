"""Teacher: a trained network that a run follows.   Shapes: N training images, B batch, K classes."""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from attnlab.network import Output
from attnlab.training.epoch import Batch

REMEMBERED = 2**30  # bytes of logits that may be kept


class Teacher:
    """`teacher(batch) -> Output` of a frozen network: eval mode, no gradients, under training's autocast, on the batch's device.

    It is no module, so whoever holds it has neither its parameters nor its state. It sees the images that the loader gives: what the
    student's own placed modules do to them (cutout, noise) is the student's alone.

    Args:
        shapes: {place: shape without batch} of what its places give, in the order of the pass.
        autocast: the precision of training.
        foreign: where it learned other classes or images, a sentence that says so: it can give a start, and nothing can follow it.

    `remember(images, num)` lets it look at every image once: for terms that need logits alone, of images that are the same every epoch.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        shapes: Mapping[str, tuple[int, ...]],
        autocast: contextlib.AbstractContextManager,
        foreign: str = "",
    ) -> None:
        self.network = network.requires_grad_(False).eval()
        self.shapes, self.autocast, self.foreign = dict(shapes), autocast, foreign
        self.device: torch.device | None = None
        self.images: Callable[[torch.device], Iterable[Any]] | None = None
        self.logits_NK: Tensor | None = None

    def keep(self, patterns: Sequence[str], *, where: str) -> None:
        """From now on an Output's values have what these places of its backbone give."""
        getattr(self.network, "network", self.network).keep(patterns, where=where)

    @property
    def asks(self) -> tuple[str, ...]:
        """What it wants of a batch beside the images."""
        return ("index",) if self.images else ()

    def remember(self, images: Callable[[torch.device], Iterable[Any]], num: int, *, num_classes: int) -> None:
        """Keep the logits of all `num` training images, if they take no more than 1 GiB. `images(device)` gives batches (x, ...) in order.

        They are computed at the first batch; an Output has the logits only.
        """
        if 4 * num * num_classes <= REMEMBERED:
            self.images = images

    def __call__(self, batch: Batch) -> Output:
        if self.device != batch.x.device:
            self.device = batch.x.device
            self.network.to(self.device)
        if not self.images:
            return self.look(batch.x)
        if self.logits_NK is None:
            self.logits_NK = torch.cat([self.look(x).logits for x, *_ in self.images(self.device)])
        return Output(self.logits_NK.index_select(0, batch.index), None, None)

    def look(self, x: Tensor) -> Output:
        with torch.no_grad(), self.autocast:
            out = self.network(x)
        return Output(out.logits, out.features, None, values=out.values)
