"""Reader: image files in folders, a folder a class."""

import io
from pathlib import Path

import torch

from attnlab.data.images import FileSet

EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}


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
