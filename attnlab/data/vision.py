"""The public image sets that torchvision downloads and checks, one small class each.

Offline, or with a broken download, the error names the files and the folder they belong in.

Legend: N images, C channels, H height, W width.
"""

import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from attnlab.data.base import FileSet, ImageData, ImageSet
from attnlab.data.file_data import FileData
from attnlab.data.readers.folder import ImageFiles


@dataclass(kw_only=True, eq=False, repr=False)
class VisionData(ImageData):
    """download: fetch what is not in `root` (a few hundred MB at most; STL-10: 2.6 GB). A subclass defines `fetch`."""

    files: ClassVar[str]  # what to put under root, for machines without network
    kept: ClassVar[tuple[str, ...]]  # what is read of it

    download: bool = True

    def fetch(self, split: str, download: bool):
        """torchvision's data set."""
        raise NotImplementedError

    def sources(self) -> list[Path]:
        return [*(Path(self.root).expanduser() / name for name in self.kept), *super().sources()]

    def fetched(self, split: str):
        return fetch_once(self, lambda download: self.fetch(split, download))

    def load(self, split: str) -> ImageSet:
        found = self.fetched(split)
        pixels = torch.as_tensor(found.data)
        if pixels.ndim == 3:
            pixels = pixels[..., None]
        if pixels.shape[3] in (1, 3):  # (N, H, W, C), CIFAR and MNIST; the others are (N, C, H, W)
            pixels = pixels.permute(0, 3, 1, 2)
        labels = torch.as_tensor(found.targets if hasattr(found, "targets") else found.labels).long()
        classes = tuple(getattr(found, "classes", map(str, range(10))))
        return ImageSet(pixels.contiguous(memory_format=torch.channels_last), labels, None, classes)


def fetch_once(data: "VisionData | OxfordPet", fetch):
    """`fetch(False)`, or else, one process at a time, `fetch(True)`. FileNotFoundError if that fails as well."""
    from filelock import FileLock

    root = Path(data.root).expanduser()
    with contextlib.redirect_stdout(sys.stderr):  # torchvision prints
        try:
            return fetch(False)
        except (RuntimeError, OSError) as error:
            cause = error
        if data.download:
            try:
                root.mkdir(parents=True, exist_ok=True)
                with FileLock(root / f".{data.name}.lock"):
                    return fetch(True)
            except (RuntimeError, OSError, EOFError) as error:
                cause = error
    reason = str(cause).splitlines()[0] if data.download else "data.download=false"
    raise FileNotFoundError(
        f"{data.name} is not in {root.absolute()} and could not be downloaded ({reason}); put {data.files} there, or set data.root"
    ) from cause


@dataclass(kw_only=True, eq=False, repr=False)
class Cifar10(VisionData):
    """CIFAR-10: 50,000 + 10,000, 3x32x32. The papers' crop4 + flip."""

    name: ClassVar[str] = "cifar10"
    files: ClassVar[str] = "cifar-10-python.tar.gz (www.cs.toronto.edu/~kriz/cifar.html)"
    kept: ClassVar[tuple[str, ...]] = ("cifar-10-batches-py",)

    crop: int = 4
    flip: bool = True

    def fetch(self, split: str, download: bool):
        from torchvision.datasets import CIFAR10

        return CIFAR10(self.root, train=split == "train", download=download)


@dataclass(kw_only=True, eq=False, repr=False)
class Cifar100(VisionData):
    """CIFAR-100: 50,000 + 10,000, 3x32x32, fine labels. The papers' crop4 + flip."""

    name: ClassVar[str] = "cifar100"
    files: ClassVar[str] = "cifar-100-python.tar.gz (www.cs.toronto.edu/~kriz/cifar.html)"
    kept: ClassVar[tuple[str, ...]] = ("cifar-100-python",)

    crop: int = 4
    flip: bool = True

    def fetch(self, split: str, download: bool):
        from torchvision.datasets import CIFAR100

        return CIFAR100(self.root, train=split == "train", download=download)


@dataclass(kw_only=True, eq=False, repr=False)
class Svhn(VisionData):
    """SVHN cropped digits: 73,257 + 26,032, 3x32x32 (without `extra`). Not mirrored by default: a mirrored 2 is no digit."""

    name: ClassVar[str] = "svhn"
    files: ClassVar[str] = "train_32x32.mat and test_32x32.mat (ufldl.stanford.edu/housenumbers)"
    kept: ClassVar[tuple[str, ...]] = ("train_32x32.mat", "test_32x32.mat")

    crop: int = 4

    def fetch(self, split: str, download: bool):
        from torchvision.datasets import SVHN

        return SVHN(self.root, split=split, download=download)


@dataclass(kw_only=True, eq=False, repr=False)
class FashionMnist(VisionData):
    """Fashion-MNIST: 60,000 + 10,000, 1x28x28."""

    name: ClassVar[str] = "fashion_mnist"
    files: ClassVar[str] = "FashionMNIST/raw/ with the four *-ubyte.gz files (github.com/zalandoresearch/fashion-mnist)"
    kept: ClassVar[tuple[str, ...]] = ("FashionMNIST/raw",)

    def fetch(self, split: str, download: bool):
        from torchvision.datasets import FashionMNIST

        return FashionMNIST(self.root, train=split == "train", download=download)


@dataclass(kw_only=True, eq=False, repr=False)
class Mnist(VisionData):
    """MNIST: 60,000 + 10,000, 1x28x28."""

    name: ClassVar[str] = "mnist"
    files: ClassVar[str] = "MNIST/raw/ with the four *-ubyte.gz files (ossci-datasets.s3.amazonaws.com/mnist)"
    kept: ClassVar[tuple[str, ...]] = ("MNIST/raw",)

    def fetch(self, split: str, download: bool):
        from torchvision.datasets import MNIST

        return MNIST(self.root, train=split == "train", download=download)


@dataclass(kw_only=True, eq=False, repr=False)
class Stl10(VisionData):
    """STL-10, labelled part: 5,000 + 8,000, 3x96x96. Padding 12 as in the Cutout paper (arXiv:1708.04552)."""

    name: ClassVar[str] = "stl10"
    files: ClassVar[str] = "stl10_binary.tar.gz (cs.stanford.edu/~acoates/stl10)"
    kept: ClassVar[tuple[str, ...]] = ("stl10_binary",)

    crop: int = 12
    flip: bool = True

    def fetch(self, split: str, download: bool):
        from torchvision.datasets import STL10

        return STL10(self.root, split=split, download=download)


@dataclass(kw_only=True, eq=False, repr=False)
class OxfordPet(FileData):
    """Oxford-IIIT Pet, 37 breeds: 3,680 (trainval) + 3,669, resized to `size`. Test boxes: the extent of the trimap's pet."""

    name: ClassVar[str] = "oxford_pet"
    files: ClassVar[str] = "oxford-iiit-pet/ with images.tar.gz and annotations.tar.gz unpacked (www.robots.ox.ac.uk/~vgg/data/pets)"
    kept: ClassVar[tuple[str, ...]] = ("oxford-iiit-pet",)

    size: int | None = 128
    flip: bool = True
    download: bool = True

    def __post_init__(self):
        super().__post_init__()
        if self.size is None:
            raise ValueError("size: the pets' pictures differ in size, give a side in pixels")

    def sources(self) -> list[Path]:
        return [*(Path(self.root).expanduser() / name for name in self.kept), *super().sources()]

    def fetch(self, split: str, download: bool):
        from torchvision.datasets import OxfordIIITPet

        return OxfordIIITPet(self.root, split="trainval" if split == "train" else "test", download=download)

    def load(self, split: str) -> FileSet:
        classes = tuple(fetch_once(self, lambda download: self.fetch(split, download)).classes)
        folder = Path(self.root).expanduser() / "oxford-iiit-pet"
        listing = folder / "annotations" / ("trainval.txt" if split == "train" else "test.txt")
        rows = [line.split() for line in listing.read_text().splitlines() if line and not line.startswith("#")]
        labels = torch.tensor([int(row[1]) - 1 for row in rows])
        boxes = None
        if split == "test":
            with ThreadPoolExecutor(8) as pool:
                extents = pool.map(_trimap_box, [folder / "annotations" / "trimaps" / f"{row[0]}.png" for row in rows])
            boxes = torch.tensor(list(extents))
        images = FileSet.of(ImageFiles([folder / "images" / f"{row[0]}.jpg" for row in rows]), labels, classes, boxes)
        return self.formatted(images, split)


def _trimap_box(path: Path) -> tuple[float, float, float, float]:
    """Edges around the pixels of value 1 (pet), NaN if there is none."""
    from PIL import Image

    pet_HW = np.asarray(Image.open(path)) == 1
    columns, rows = np.flatnonzero(pet_HW.any(0)), np.flatnonzero(pet_HW.any(1))
    if not len(rows):
        return (float("nan"),) * 4
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
