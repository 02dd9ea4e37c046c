"""Images in folders: `path/train/<class>/*.png`, `path/test/<class>/*.png` and perhaps `path/val/<class>/*.png`."""

import io
from dataclasses import dataclass
from pathlib import Path

import torch

from attnlab.data.base import FileSet
from attnlab.data.files import FileData, existing

EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


@dataclass(kw_only=True, eq=False, repr=False)
class ImageFolder(FileData):
    """path: folder that holds `train` and `test` (and `val`). A class is a folder of `train`; its images may lie in subfolders.

    Any format that Pillow reads. OOD sets: `photos`, and what lies beside `path`.
    """

    path: str

    @property
    def name(self) -> str:
        return Path(self.path).expanduser().absolute().name

    def own_splits(self) -> tuple[str, ...]:
        folder = existing(self.path, what="a folder that holds train/<class>/ and test/<class>/")
        splits = tuple(split for split in ("train", "val", "test") if (folder / split).is_dir())
        if "train" not in splits:
            raise ValueError(f"path: {self.path} has no folder train; images are expected as train/<class>/*.png")
        return splits

    def load(self, split: str) -> FileSet:
        self.own_splits()
        folder = Path(self.path).expanduser()
        classes = sorted(entry.name for entry in (folder / "train").iterdir() if entry.is_dir())
        if not classes:
            raise ValueError(f"{folder / 'train'}: no class folders; images are expected as train/<class>/*.png")
        for entry in sorted((folder / split).iterdir()):
            if entry.is_dir() and entry.name not in classes:
                raise ValueError(f"{entry}: no such class in {folder / 'train'}; classes are {', '.join(classes)}")
        return self.formatted(read(folder / split, tuple(classes)), split)


class ImageFiles:
    """Image files by path."""

    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int):
        from PIL import Image

        return Image.open(io.BytesIO(self.paths[index].read_bytes()))  # leaves no file open

    def where(self, index: int) -> str:
        return str(self.paths[index])


def read(folder: Path, classes: tuple[str, ...] = ()) -> FileSet:
    """The images of the folders `classes`, in order, labelled; or all images anywhere below `folder`, labels -1."""
    paths, labels = [], []
    for label, name in enumerate(classes) if classes else [(-1, ".")]:
        found = sorted(path for path in (folder / name).rglob("*") if path.suffix.lower() in EXTENSIONS)
        paths += found
        labels += [label] * len(found)
    if not paths:
        raise ValueError(f"{folder}: no images in it (of {', '.join(sorted(EXTENSIONS))})")
    return FileSet.of(ImageFiles(paths), torch.tensor(labels), classes)
