"""Trained: a trained network with all that an evaluator may ask of it; what takes a pass over data is computed once and kept.

An evaluator is any object with `run(trained) -> {metric: value}`. It leaves the network as it was, in eval mode.

Legend: N images, K classes, h, w height and width of a map.
"""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attnlab.data.base import ImageData
from attnlab.data.images import ImageSet
from attnlab.data.protocols import stratified_order
from attnlab.evaluation.partial import PartialFile
from attnlab.ood.bank import Bank
from attnlab.training.settings import Settings

TEST = "test"


class Incomplete(ValueError):
    """What an evaluator raises that found some of its metrics and not the others: these metrics are kept, the message is noted."""

    def __init__(self, message: str, metrics: Mapping[str, float]) -> None:
        super().__init__(message)
        self.metrics = dict(metrics)


@dataclass(kw_only=True, eq=False)
class Trained:
    """A trained network and what belongs to it.

    network: on `settings.device`, in eval mode; `network(x) -> Output`. data, settings: the run's. folder: the run's, for files.
    heads, explainers: the chosen OOD heads and explainers by name. history: one row an epoch, from 1. peak_rate: the largest learning
    rate of the schedule, where it is known.
    metrics: of the evaluators that ran before (and of training), read only. seed: of the run.
    scores[head][set]: OOD scores (N,) on the CPU, larger = more OOD; the set `test` is in-distribution.
    pictures: kind of every picture drawn, by its path relative to `folder`. timings: seconds by a name like a metric's, which evaluators
    add to; two equal runs differ in them, so they are no metrics. banks: the banks extracted so far, see `bank`.
    stored: logits (N, K) and labels (N,) by split that an earlier evaluation of this very network kept, see `logits`. partial: where the
    evaluator that runs now keeps what it has found so far, see `kept`.
    """

    network: nn.Module
    data: ImageData
    settings: Settings
    folder: Path
    heads: Mapping[str, Any] = field(default_factory=dict)
    explainers: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, float]] = ()
    peak_rate: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    stored: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    scores: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    pictures: dict[str, str] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    banks: dict[str, Bank] = field(default_factory=dict)
    partial: PartialFile | None = None

    def loader(self, split: str) -> Any:
        """Every image of `train`, `val`, `test` or an OOD set once, in its order, as batches (x, y) on the device."""
        return self.data.eval_loader(split, self.settings.device)

    def bank(self, split: str) -> Bank:
        """Features, logits and labels of a split, from one pass at most; labels are -1 for OOD sets."""
        if split not in self.banks:
            self.banks[split] = self.extract(self.loader(split))
        return self._labelled(split)

    def extract(self, batches: Any) -> Bank:
        """The bank of any batches (x, y), in the precision of training."""
        from attnlab.ood.extract import extract

        with self.settings.autocast():
            return extract(self.network, batches)

    def logits(self, split: str) -> tuple[Tensor, Tensor]:
        """Logits (N, K) and labels (N,) of a split on the CPU: without a pass where they are at hand or stored."""
        if split not in self.banks and split in self.stored:
            return self.stored[split]
        bank = self.bank(split)
        return bank.logits.cpu(), bank.labels.cpu()

    def choice(self, split: str, num: int, *, seed: int = 0) -> tuple[Tensor, ImageSet]:
        """Positions and images of `num` of a split's images (all, if there are fewer), every class in proportion, by `seed`."""
        images = self.data.split(split)
        chosen_N = stratified_order(images.labels - images.labels.min(), seed)[:num]
        return chosen_N, images.subset(chosen_N).in_memory()

    def kept(self, name: str) -> Any:
        """What this evaluator had found under a name when its run was killed, else None. Asked for in the order of the work: the random
        generators go on from where they stood then (`attnlab.evaluation.partial`)."""
        return self.partial.get(name) if self.partial else None

    def keep(self, name: str, found: Any) -> None:
        """Keep mappings, lists, tensors, numbers and texts under a name until this evaluator ends."""
        if self.partial:
            self.partial.put(name, found)

    def splits_at_hand(self) -> list[str]:
        """Those whose `logits` need no further pass."""
        return list({**self.stored, **self.banks})

    @property
    def maps(self) -> dict[str, Tensor]:
        """Attention maps (N, 1, h, w) of the test images on the CPU, by the key of the placed module; one pass for all."""
        return self._attention["map"]

    @property
    def rectangles(self) -> dict[str, Tensor]:
        """Rectangles (N, 5) of the test images, of the placed modules that keep one."""
        return self._attention["rectangle"]

    def attention_over(self, chosen_M: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """`maps` and `rectangles` of these test images: by a pass over them alone, unless those of all images are at hand."""
        if "_attention" in vars(self):
            found = {name: {key: value_N[chosen_M] for key, value_N in store.items()} for name, store in self._attention.items()}
        else:
            images = self.data.split(TEST).subset(chosen_M).in_memory().images.split(self.data.eval_batch_size)
            found = self._look(self.data.normalise(x).to(self.settings.device) for x in images)
        return found["map"], found["rectangle"]

    def picture(self, name: str, kind: str) -> Path:
        """Where to draw `figures/<name>`. It is listed in the record under `kind` once it is there, see `drawn`."""
        path = self.folder / "figures" / name
        self.pictures[str(path.relative_to(self.folder))] = kind
        return path

    def drawn(self) -> dict[str, str]:
        """`pictures` that are there."""
        return {path: kind for path, kind in self.pictures.items() if (self.folder / path).exists()}

    def _labelled(self, split: str) -> Bank:
        bank = self.banks[split]
        return replace(bank, labels=torch.full_like(bank.labels, -1)) if split in self.data.ood else bank

    @functools.cached_property
    def _attention(self) -> dict[str, dict[str, Tensor]]:
        return self._look(x for x, _ in self.loader(TEST))

    def _look(self, batches: Iterable[Tensor]) -> dict[str, dict[str, Tensor]]:
        """Maps and rectangles of every placed module that keeps them, from one pass over the batches."""
        placed = getattr(self.network, "placed", None)
        components = [(key, component) for key, component in placed.components() if hasattr(component, "map")] if placed else []
        found: dict[str, dict[str, list[Tensor]]] = {"map": {}, "rectangle": {}}
        if components:
            self.network.eval()
            with torch.no_grad(), self.settings.autocast():
                for x in batches:
                    self.network(x)
                    for key, component in components:
                        for name, store in found.items():
                            value = getattr(component, name, None)
                            if value is not None:
                                store.setdefault(key, []).append(value.detach().float().cpu())
        return {name: {key: torch.cat(parts) for key, parts in store.items()} for name, store in found.items()}
