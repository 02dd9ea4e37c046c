"""The data set `openood`: a benchmark of OpenOOD v1.5 by its own lists, ID splits and OOD sets (see `attnlab.data.benchmarks`)."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from attnlab.data.benchmarks import BENCHMARKS, LISTS, Sets
from attnlab.data.file_data import FileData, existing
from attnlab.data.images import FileSet


@dataclass(kw_only=True, eq=False, repr=False)
class OpenOOD(FileData):
    """path: the folder of benchmark_imglist and of the images. benchmark: cifar10, cifar100, imagenet200 or imagenet.

    Splits: train, val (of CIFAR, 1,000 of the 10,000 test images) and test (the other 9,000). ood: one of `openood_<benchmark>`, or any.
    """

    path: str
    benchmark: Literal["cifar10", "cifar100", "imagenet200", "imagenet"] = "cifar10"
    size: int | None = 32
    fit: Literal["stretch", "crop"] = "crop"
    channels: Literal[1, 3] | None = 3
    crop: int = 4
    flip: bool = True
    ood: Sets = "openood_cifar10"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.ood_root = self.ood_root or self.path
        self.own = BENCHMARKS[f"openood_{self.benchmark}"]

    @property
    def name(self) -> str:
        return f"openood_{self.benchmark}"

    def own_splits(self) -> tuple[str, ...]:
        return ("train", "val", "test")

    def load(self, split: str) -> FileSet:
        folder = existing(self.path, what=f"the folder that holds {LISTS} and the images of OpenOOD v1.5")
        found = self.own.read(self.benchmark, folder, split=split, labelled=True)
        return self.formatted(found if split == "train" else replace(found, classes=self.classes), split)

    def sources(self) -> list[Path]:
        lists = [self.own.list_of(self.benchmark, Path(self.path).expanduser(), split) for split in self.own_splits()]
        return [*lists, *super().sources()]
