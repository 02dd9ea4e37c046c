"""Reader: image files in folders, a folder a class."""

import hashlib
import io
from pathlib import Path

import numpy as np
import torch

from attnlab.data.images import FileSet

EXTENSIONS = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"}
READ = 2**30  # bytes that are read for a digest: seconds
SAMPLE = 1000


class ImageFiles:
    """Image files by path."""

    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, index: int):
        from PIL import Image

        return Image.open(io.BytesIO(self.paths[index].read_bytes()))  # leaves no file open

    def digest(self, rows: np.ndarray) -> str:
        """Of every byte, where that is at most READ; of more, of the names and sizes of all, and the bytes of SAMPLE of them."""
        paths = [self.paths[row] for row in rows.tolist()]
        sizes = [path.stat().st_size for path in paths]
        whole = sum(sizes) <= READ
        found = hashlib.sha256()
        for path, size in zip(paths, sizes, strict=True):
            found.update(f"{path.parent.name}/{path.name} {size}\n".encode(errors="surrogateescape"))
        for path in paths if whole else paths[:: max(1, len(paths) // SAMPLE)]:
            found.update(path.read_bytes())
        return f"{'stored' if whole else 'listed'}:{found.hexdigest()}"

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
