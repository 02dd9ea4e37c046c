"""OpenOOD's benchmarks (v1.5, Zhang et al., arXiv 2306.09301): near and far OOD sets by one name, `data.ood=openood_cifar10`.

OpenOOD defines its splits by lists of files. These and the images lie, as its script has them, under one folder, `data.ood_root`:

    benchmark_imglist/cifar10/test_tin.txt     a line an image, its path below
    images_classic/ (or images_largescale/)    the images

Without the lists of a benchmark its sets are taken by name, as any OOD set is (see `attnlab.data.ood`), and the record says that the splits
are not OpenOOD's.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from attnlab.data.images import FileSet
from attnlab.data.readers import listed

LISTS, CLASSIC, LARGE = "benchmark_imglist", "images_classic", "images_largescale"
FETCH = "fetch it with scripts/download of OpenOOD v1.5 (github.com/Jingkang50/OpenOOD)"


@dataclass(frozen=True)
class Benchmark:
    """near, far: OOD sets, by the names of their lists. images: the folder of the images; elsewhere: of sets that have another."""

    name: str
    near: tuple[str, ...]
    far: tuple[str, ...]
    images: str = CLASSIC
    elsewhere: Mapping[str, str] = field(default_factory=dict)

    @property
    def sets(self) -> tuple[str, ...]:
        return (*self.near, *self.far)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        return {"near": self.near, "far": self.far}

    def has_lists(self, root: Path | None) -> bool:
        return root is not None and (root / LISTS / self.name).is_dir()

    def list_of(self, name: str, root: Path, split: str = "test") -> Path:
        return root / LISTS / self.name / f"{split}_{name}.txt"

    def folder_of(self, name: str, root: Path) -> Path:
        return root / self.elsewhere.get(name, self.images)

    def read(self, name: str, root: Path, *, split: str = "test", labelled: bool = False) -> FileSet:
        """The images of a set as OpenOOD lists them; see `attnlab.data.readers.listed`."""
        return listed.read(self.list_of(name, root, split), self.folder_of(name, root), labelled=labelled, fetch=FETCH)


FAR_OF_CIFAR = ("mnist", "svhn", "texture", "places365")
OF_IMAGENET = (("ssb_hard", "ninco"), ("inaturalist", "textures", "openimage_o"), LARGE, {"textures": CLASSIC})
BENCHMARKS = {
    "openood_cifar10": Benchmark("cifar10", ("cifar100", "tin"), FAR_OF_CIFAR),
    "openood_cifar100": Benchmark("cifar100", ("cifar10", "tin"), FAR_OF_CIFAR),
    "openood_imagenet200": Benchmark("imagenet200", *OF_IMAGENET),
    "openood_imagenet": Benchmark("imagenet", *OF_IMAGENET),
}
Sets = tuple[str, ...] | Literal["openood_cifar10", "openood_cifar100", "openood_imagenet200", "openood_imagenet"]  # of `data.ood`
