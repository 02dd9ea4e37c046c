"""What every data set is: named splits of images, the loaders over them, and the checks that a user's mistake meets.

A data set is a dataclass whose fields are its configuration; it defines `load(split)`. Everything else is here.

Legend: N images of a split, C channels, H height, W width.
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from attnlab.data import memory
from attnlab.data.augment import normalise, scale_and_bias, stream_seed
from attnlab.data.benchmarks import BENCHMARKS, Benchmark, Sets
from attnlab.data.colour import in_colours
from attnlab.data.images import FileSet, ImageSet
from attnlab.data.loader import EpochLoader, ResidentLoader, num_batches
from attnlab.data.moments import full_range, mean_std, of_all_channels
from attnlab.data.protocols import NoiseKind, balanced, flipped, long_tail, only_classes, stratified_order
from attnlab.data.stamp import stamp
from attnlab.data.stream import StreamLoader
from attnlab.data.task import OneLabel, SeveralLabels

__all__ = ["FileSet", "ImageData", "ImageSet"]

log = logging.getLogger(__name__)


@dataclass(kw_only=True, eq=False, repr=False)
class ImageData:
    """Common fields of all data sets.

    batch_size: training images per step and process. eval_batch_size: images per evaluation batch.
    val: fraction of the training images held out as `val`, stratified. 0 = the set's own validation split where it has one.
    crop: pixels of black border before a random crop back to size (uint8, as the papers' "crop4"). flip: mirror half of the images.
    ood: names of out-of-distribution sets, see `attnlab.data.ood`; or a benchmark of OpenOOD's, which names near and far ones.
    ood_root: folder with one folder of parquet files per name, or with OpenOOD's lists and images; by default the folder that holds
    `path`, where the set has a path.
    limit: train on the first `limit` images of a stratified shuffle, for quick trials.
    labels: of how many training images, a stratified choice by split_seed, training knows the labels; the others have y = -1 in its
    batches (`split("train")` has all labels). null: of all.
    per_class: train on so many images of each class; imbalance: the first class has so many times the images of the last, with a geometric
    tail between them; label_noise: share of training images whose label is wrong, label_noise_kind: any other class (symmetric) or the next
    one (asymmetric). All of the training split, whoever looks at it, by split_seed; val and test stay as they are. See `data.protocols`.
    only: the numbers of the classes that are trained on and tested, in the order of their new numbers from 0 on; null: all.
    colour_bias: in [0, 1], of sets of grey images: they are red (group 0) or green (group 1), and this share of every class's training
    images is red; of val and test half is. The channels then share one mean and deviation, so that no colour has the higher contrast for
    the network. A bias in numbers, not with the class, as of InsideBias (2004.06592). null: grey.
    mean, std: per channel, in units of the full range [0, 1]; computed from the training images when not given.
    seed: order and augmentation. split_seed: who is in which split; not the run's seed, so that all runs see the same test images.
    resident: whole set as uint8 on the device (true), streamed through worker processes (false), or by size (null): resident if a split
    takes at most 4 GiB and 40% of the free memory. Both give the same batches.
    num_workers: decoding processes, when streaming. drop_last: leave out the last partial batch of an epoch of training.
    root: folder for downloads.

    Raises ValueError or FileNotFoundError, one line with cause and way out, from the constructor (impossible values) and `prepare()`.
    """

    name: ClassVar[str]
    several_labels: ClassVar[bool] = False  # an image has several classes: `task` is SeveralLabels
    task: ClassVar[OneLabel | SeveralLabels] = OneLabel()  # what a label means, see `attnlab.data.task`
    NOT_IDENTITY: ClassVar[tuple[str, ...]] = ("resident", "num_workers", "root", "download")  # cannot change a run's numbers
    AFTER_TRAINING: ClassVar[tuple[str, ...]] = ("ood", "ood_root")  # cannot change the trained network

    batch_size: int = 128
    eval_batch_size: int = 500
    val: float = 0.0
    crop: int = 0
    flip: bool = False
    ood: Sets = ()
    ood_root: str | None = None
    limit: int | None = None
    labels: int | None = None
    per_class: int | None = None
    imbalance: float | None = None
    label_noise: float | None = None
    label_noise_kind: NoiseKind = "symmetric"
    only: tuple[int, ...] | None = None
    colour_bias: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    seed: int = 0
    split_seed: int = 0
    resident: bool | None = None
    num_workers: int = 2
    drop_last: bool = True
    root: str = "data"
    _cache: dict[str, ImageSet | FileSet] = field(init=False, default_factory=dict)
    ood_benchmark: Benchmark | None = field(init=False, default=None)  # whose sets `ood` are
    true_labels_N: Tensor | None = field(init=False, default=None)  # of the training images, where label_noise has changed some

    def __post_init__(self):
        if isinstance(self.ood, str):
            self.ood_benchmark = BENCHMARKS[self.ood]
            self.ood = self.ood_benchmark.sets
        self.ood = tuple(self.ood)
        for key, low in (("batch_size", 1), ("eval_batch_size", 1), ("crop", 0), ("num_workers", 0)):
            if getattr(self, key) < low:
                raise ValueError(f"{key} must be at least {low}, got {getattr(self, key)}")
        if not 0 <= self.val < 1:
            raise ValueError(f"val is a fraction of the training images in [0, 1), got {self.val}")
        for key, low, what in (("limit", 2, "images"), ("labels", 1, "image"), ("per_class", 1, "image")):
            value = getattr(self, key)
            if value is not None and value < low:
                raise ValueError(f"{key} must be at least {low} {what}, or null for all, got {value}")
        if self.per_class is not None and self.limit is not None:
            raise ValueError("per_class and limit both say how many images to train on; give one of them")
        if self.imbalance is not None and not 1 <= self.imbalance < math.inf:
            raise ValueError(f"imbalance is how many times the first class is larger than the last, at least 1, got {self.imbalance}")
        if self.label_noise is not None and not 0 <= self.label_noise <= 1:
            raise ValueError(f"label_noise is a share of the training images in [0, 1], got {self.label_noise}")
        if self.only is not None:
            self.only = tuple(self.only)
            if len(self.only) < 2 or len(set(self.only)) != len(self.only) or min(self.only) < 0:
                raise ValueError(f"only takes the numbers of two or more classes, each once, got {list(self.only)}")
        if self.colour_bias is not None and not 0 <= self.colour_bias <= 1:
            raise ValueError(f"colour_bias is a share in [0, 1], or null for grey images, got {self.colour_bias}")
        if len(set(self.ood)) != len(self.ood):
            raise ValueError(f"ood names a set twice: {list(self.ood)}")
        if reserved := {"train", "val", "test"} & set(self.ood):
            raise ValueError(f"ood: {sorted(reserved)} are splits of this set, not out-of-distribution sets")
        if (self.mean is None) != (self.std is None):
            raise ValueError("mean and std go together: give both or neither")
        if self.std is not None and min(self.std) <= 0:
            raise ValueError(f"std must be positive, got {list(self.std)}")

    # What a data set defines.

    def own_splits(self) -> tuple[str, ...]:
        """The splits that `load` knows."""
        return ("train", "test")

    def load(self, split: str) -> ImageSet | FileSet:
        """The images of one of the set's own splits. Training labels are 0..K-1."""
        raise NotImplementedError

    @property
    def ood_groups(self) -> dict[str, tuple[str, ...]]:
        """The sets of `ood` in groups that a mean is taken over: near and far ones of a benchmark."""
        return self.ood_benchmark.groups if self.ood_benchmark else {}

    def own_ood(self) -> dict[str, Callable[[], ImageSet]]:
        """Out-of-distribution sets that this set brings along, by name."""
        from attnlab.data.ood import photos

        return {"photos": lambda: photos(self.shape)}

    def sources(self) -> list[Path]:
        """The files and folders that the splits are read from, as far as they are there; none for images that are computed."""
        from attnlab.data import ood

        return [path for name in self.ood for path in ood.sources(name, self)]

    # What the trainer uses.

    @property
    def splits(self) -> tuple[str, ...]:
        """train, val where there is one, test, then the OOD names."""
        val = ("val",) if self.val > 0 or "val" in self.own_splits() else ()
        test = ("test",) if "test" in self.own_splits() else ()
        return ("train", *val, *test, *self.ood)

    def has(self, split: str) -> bool:
        return split in self.splits

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W), or (D,) for vectors."""
        return self.split("train").shape

    @property
    def classes(self) -> tuple[str, ...]:
        return self.split("train").classes

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def num_labels(self) -> int:
        """How many values a label may have."""
        return self.num_classes

    def prepare(self) -> None:
        """Download, read and check everything the configuration names. Later calls raise nothing that is the user's to repair."""
        self.split("train")
        if "test" not in self.own_splits():
            raise ValueError(f"{self.name}: there is no test split to evaluate on")
        for name in self.splits:
            self.split(name)
        if self.mean is None or self.std is None:
            self.mean, self.std = mean_std(self.split("train"))
            if self.colour_bias is not None:
                self.mean, self.std = of_all_channels(self.mean, self.std)
        if len(self.mean) != self.shape[0] or len(self.std) != self.shape[0]:
            raise ValueError(f"mean and std need {self.shape[0]} values, one a channel, got {len(self.mean)} and {len(self.std)}")
        if self.crop > max(self.shape):
            raise ValueError(f"data.crop={self.crop} is more than an image's side ({max(self.shape)} pixels): crops of border alone")
        if self.batch_size > len(self.split("train")) and self.drop_last:
            raise ValueError(
                f"data.batch_size={self.batch_size} is more than the {len(self.split('train'))} training images of {self.name}; "
                "lower it or set data.drop_last=false"
            )
        log.info("data %s", self.summary())

    def summary(self) -> str:
        """One line: shape, classes, images per split and where they are."""
        parts = []
        for name in self.splits:
            images = self.split(name)
            parts.append(f"{name} {len(images):,}" + ("" if isinstance(images, ImageSet) else " (streamed)"))
        return f"{self.name} {'x'.join(map(str, self.shape))}, {self.num_classes} classes: {', '.join(parts)}"

    def describe(self) -> dict[str, Any]:
        """For the record: what tells two data sets of one name apart. Digests: see `attnlab.records.images`; stamp: see `stamp`;
        ood_splits: see `attnlab.data.ood.whose_splits`."""
        from attnlab.data import ood

        images = {name: len(self.split(name)) for name in self.splits}
        digests = {name: self.split(name).digest() for name in self.splits}
        stamp = self.stamp()
        mean, std = self.moments()
        return {
            "name": self.name,
            "shape": list(self.shape),
            "classes": list(self.classes),
            "images": images,
            "digests": digests,
            "mean": list(mean),
            "std": list(std),
            **({"stamp": stamp} if stamp else {}),
            **({"ood_splits": ood.whose_splits(self)} if self.ood_benchmark else {}),
        }

    def stamp(self) -> str:
        """Of the files in `sources`, see `attnlab.data.stamp`; empty where there is none."""
        return stamp(self.sources())

    def split(self, name: str) -> ImageSet | FileSet:
        """A split or an OOD set: in memory where it fits, else still encoded. `labels`, `boxes`, `classes`, `shape`, `len` on both."""
        if name not in self._cache:
            if name == "train" or (name == "val" and self.val > 0):
                self._split_training()
            elif name in self.own_splits():
                self._cache[name] = self._settle(self._own(name), training=False)
            else:
                from attnlab.data import ood

                self._cache[name] = self._settle(ood.resolve(name, self), training=False)
        return self._cache[name]

    def image_set(self, split: str, num: int | None = None) -> ImageSet:
        """The split in memory, its images unaugmented uint8; or only `num` of them, every class in proportion (for figures)."""
        images = self.split(split)
        if num is not None and num < len(images):
            images = images.subset(stratified_order(images.labels - images.labels.min(), self.split_seed)[:num])
        return images.in_memory()

    def train_loader(self, device: torch.device | str, *, rank: int = 0, world_size: int = 1) -> EpochLoader:
        """Shuffled, augmented, normalised batches `(x, y)` on the device; see `EpochLoader`. y = -1: unlabelled, see `labels`."""
        loader = self._loader(
            "train", device, batch_size=self.batch_size, shuffle=True, seed=self.seed, pad=self.crop, flip=self.flip,
            drop_last=self.drop_last, rank=rank, world_size=world_size,
        )  # fmt: skip
        if self.labels is not None:
            loader.labels_N = self.train_labels().to(loader.device)
        return loader

    def steps_per_epoch(self, *, world_size: int = 1) -> int:
        """Optimisation steps of an epoch."""
        return num_batches(len(self.split("train")), self.batch_size, drop_last=self.drop_last, world_size=world_size)

    def eval_loader(self, split: str, device: torch.device | str) -> EpochLoader:
        """Every image of the split once, in the order of `split(name)`, unaugmented, normalised."""
        return self._loader(split, device, batch_size=self.eval_batch_size)

    def normalise(self, images: Tensor) -> Tensor:
        """(N, C, H, W) uint8, or (N, D), as the network sees it: fp32 with mean 0 and std 1 over the training set."""
        return normalise(images, *scale_and_bias(*self.moments(), tuple(images.shape[1:]), unit=full_range(images), device=images.device))

    # Inside.

    min_scale: ClassVar[float] = 0.0  # sets of files make it a field

    def moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation a channel, in units of the full range."""
        if self.mean is None or self.std is None:
            self.prepare()
        return tuple(self.mean), tuple(self.std)

    def _split_training(self) -> None:
        """Fill `train`, and `val` where it is held out."""
        whole = self._own("train")
        order_N = stratified_order(whole.labels, self.split_seed)
        num_val = round(self.val * len(whole))
        if self.val > 0 and not 0 < num_val < len(whole):
            raise ValueError(f"val={self.val} of {len(whole)} images leaves nothing to train or to validate on")
        if self.limit is not None and self.limit > len(whole) - num_val:
            raise ValueError(f"limit={self.limit} is more than the {len(whole) - num_val} training images of {self.name}")
        train = whole
        if num_val:
            self._cache["val"] = self._settle(whole.subset(order_N[:num_val].sort().values), training=False)
        if num_val or self.limit is not None:
            stop = len(whole) if self.limit is None else num_val + self.limit
            train = whole.subset(order_N[num_val:stop].sort().values)
        if self.per_class is not None:
            train = train.subset(balanced(train.labels, self.per_class, self.split_seed))
        if self.imbalance is not None:
            train = train.subset(long_tail(train.labels, self.imbalance, self.split_seed))
        if self.label_noise:
            self.true_labels_N = train.labels
            labels_N = flipped(train.labels, self.label_noise, len(train.classes), self.split_seed, kind=self.label_noise_kind)
            train = replace(train, labels=labels_N)
        if len(train.labels.unique()) < 2:
            raise ValueError(f"{self.name}: all {len(train)} training images are of one class; a classifier needs two or more")
        self._cache["train"] = self._settle(train, training=True)

    def train_labels(self) -> Tensor:
        """Labels (N,) of the training images in their order, -1 where training does not know them."""
        labels_N = self.split("train").labels
        if self.labels is None:
            return labels_N
        if self.labels > len(labels_N):
            raise ValueError(f"labels={self.labels} is more than the {len(labels_N)} training images of {self.name}")
        chosen = stratified_order(labels_N, self.split_seed)[: self.labels]
        return torch.full_like(labels_N, -1).index_copy_(0, chosen, labels_N[chosen])

    def _own(self, split: str) -> ImageSet | FileSet:
        """One of the set's own splits, of the classes and in the colours that are asked for."""
        images = self.load(split)
        if self.only is not None:
            if max(self.only) >= len(images.classes):
                raise ValueError(f"only={list(self.only)}: {self.name} has the classes 0..{len(images.classes) - 1}")
            images = only_classes(images, self.only)
        if self.colour_bias is not None:
            if len(images.shape) != 3 or images.shape[0] != 1:
                raise ValueError(f"colour_bias is of grey images, and those of {self.name} have the shape {images.shape}; leave it null")
            share = self.colour_bias if split == "train" else 0.5
            images = in_colours(images.in_memory(), share, stream_seed("colour", split, self.split_seed))
        return self._checked(split, images)

    def _checked(self, split: str, images: ImageSet | FileSet) -> ImageSet | FileSet:
        if len(images) == 0:
            raise ValueError(f"{self.name}: the {split} split is empty")
        num_classes = len(images.classes if split == "train" else self.classes)
        num_labels = self.num_labels if self.several_labels else num_classes
        bad_N = (images.labels < 0) | (images.labels >= num_labels)
        if bad_N.any():
            row = int(bad_N.nonzero()[0, 0])
            place = images.where(row) if isinstance(images, FileSet) else f"{self.name}/{split} row {row}"
            raise ValueError(f"{place}: label {int(images.labels[row])} is outside 0..{num_labels - 1} ({num_classes} classes)")
        if isinstance(images, ImageSet) and images.images.is_floating_point() and not images.images.isfinite().all():
            raise ValueError(f"{self.name}: the {split} split holds NaN or infinite values")
        if split != "train" and images.shape != self.shape:
            raise ValueError(f"{self.name}: {split} images are {images.shape}, training images {self.shape}; set data.size")
        return images

    def _settle(self, images: ImageSet | FileSet, *, training: bool) -> ImageSet | FileSet:
        """Decode what fits."""
        if training and self.min_scale:
            return images  # random resized crops are cut from the original images
        num_bytes = math.prod(images.shape) * len(images)
        most = memory.most_resident()
        keep = num_bytes <= most if self.resident is None else self.resident
        if self.resident is None and not keep and isinstance(images, FileSet):
            words = "%s: %s images are %.1f GiB decoded, over %.1f GiB, so they are decoded every epoch (data.resident=true keeps them)"
            log.info(words, self.name, f"{len(images):,}", num_bytes / 2**30, most / 2**30)
        return images.in_memory() if keep else images

    def _loader(self, split: str, device: torch.device | str, **options) -> EpochLoader:
        images, device = self.split(split), torch.device(device)
        mean, std = self.moments()
        options = dict(options, mean=mean, std=std, device=device)
        if isinstance(images, ImageSet) and self._resident_on(device, images):
            return ResidentLoader(images.images, images.labels, unit=full_range(images.images), **options)
        log.info("%s/%s: streaming through %d workers", self.name, split, self.num_workers)
        return StreamLoader(images, unit=255.0, num_workers=self.num_workers, min_scale=self.min_scale, **options)

    def _resident_on(self, device: torch.device, images: ImageSet) -> bool:
        if images.images.ndim == 2:
            return True  # vectors are small, and workers have nothing to decode
        if self.resident is not None or device.type != "cuda":
            return self.resident is not False
        return images.images.numel() * 2 <= memory.RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]  # x2: the borders
