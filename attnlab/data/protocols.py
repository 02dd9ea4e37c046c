"""Protocols of training sets: a part in proportion, few images a class, a long tail, wrong labels. Each a choice by a seed.

Legend: N images, K classes.
"""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from attnlab.data.augment import stream_seed
from attnlab.data.images import FileSet, ImageSet

NoiseKind = Literal["symmetric", "asymmetric"]


def stratified_order(labels_N: Tensor, seed: int) -> Tensor:
    """A seeded permutation any prefix of which holds the classes in proportion, as nearly as whole images allow."""
    generator = torch.Generator().manual_seed(stream_seed("stratified", seed))
    shuffled_N = torch.randperm(len(labels_N), generator=generator)
    order_N = shuffled_N[torch.argsort(labels_N[shuffled_N], stable=True)]  # class by class, random inside
    counts = torch.bincount(labels_N)
    rank_N = torch.cat([(torch.arange(int(n), dtype=torch.float64) + 0.5) / int(n) for n in counts if n])
    tie_N = torch.rand(len(labels_N), generator=generator, dtype=torch.float64) * 1e-9  # which class goes first is left to chance
    return order_N[torch.argsort(rank_N + tie_N)]


def only_classes(images: ImageSet | FileSet, classes: tuple[int, ...]) -> ImageSet | FileSet:
    """The images of some classes, which are numbered anew in their order."""
    number = torch.full((len(images.classes),), -1)
    number[list(classes)] = torch.arange(len(classes))
    kept = images.subset((number[images.labels] >= 0).nonzero()[:, 0])
    return replace(kept, labels=number[kept.labels], classes=tuple(images.classes[one] for one in classes))


def shuffled_ranks(labels_N: Tensor, seed: int) -> Tensor:
    """The position of every image in a seeded shuffle of its own class, from 0 on."""
    order_N = torch.randperm(len(labels_N), generator=_generator("classes", seed))
    order_N = order_N[labels_N[order_N].argsort(stable=True)]
    counts_K = labels_N.bincount()
    starts_K = counts_K.cumsum(0) - counts_K
    return torch.empty_like(labels_N).index_copy_(0, order_N, torch.arange(len(labels_N)) - starts_K[labels_N[order_N]])


def balanced(labels_N: Tensor, per_class: int, seed: int) -> Tensor:
    """Positions, in order, of `per_class` images of each class (Brigato and Iocchi, arXiv 2003.12843); more include fewer.

    ValueError: a class that has not so many.
    """
    least, smallest = labels_N.bincount().min(0)
    if least < per_class:
        raise ValueError(f"per_class={per_class} is more than the {int(least)} training images of class {int(smallest)}")
    return (shuffled_ranks(labels_N, seed) < per_class).nonzero()[:, 0]


def long_tail(labels_N: Tensor, ratio: float, seed: int) -> Tensor:
    """Positions, in order, of n_k = n ratio^(-k / (K - 1)) images of class k (rounded, at least 1), n being the largest class.

    The first class has `ratio` times as many as the last: the long-tailed CIFAR of Cui et al. (arXiv 1901.05555), which for two classes
    is a split of ratio : 1. A class that has fewer keeps what it has.
    """
    counts_K = labels_N.bincount()
    rest = max(len(counts_K) - 1, 1)
    wanted_K = (counts_K.max() * ratio ** (-torch.arange(len(counts_K), dtype=torch.float64) / rest)).round().clamp_min(1).long()
    return (shuffled_ranks(labels_N, seed) < wanted_K[labels_N]).nonzero()[:, 0]


def flipped(labels_N: Tensor, rate: float, num_classes: int, seed: int, *, kind: NoiseKind = "symmetric") -> Tensor:
    """Labels of which round(rate N), chosen at random, are wrong: symmetric, each any of the other classes with equal probability;
    asymmetric, k becomes k + 1, the last class the first. The same images are wrong for either kind, and more rate means more of them.
    """
    generator = _generator("noise", seed)
    chosen = torch.randperm(len(labels_N), generator=generator)[: round(rate * len(labels_N))]
    step = torch.randint(1, num_classes, (len(labels_N),), generator=generator)[: len(chosen)] if kind == "symmetric" else 1
    return labels_N.index_copy(0, chosen, (labels_N[chosen] + step) % num_classes)


def _generator(*parts: str | int) -> torch.Generator:
    return torch.Generator().manual_seed(stream_seed(*parts))
