"""Reader: image files that a text file lists, a line an image: `cifar100/test/apple/0001.png 0`, the path below a folder and the label.

The format of OpenOOD's `benchmark_imglist`. A list may be somebody else's: it names nothing outside of the folder.
"""

from pathlib import Path

import torch

from attnlab.data.images import FileSet
from attnlab.data.readers.folder import ImageFiles


def listed(line: str) -> tuple[str, str]:
    """The path and the label of a line; OpenOOD's own reader splits at the first space."""
    path, _, label = line.strip().partition(" ")
    return path, label.strip()


def read(file: Path, folder: Path, *, labelled: bool = False, fetch: str = "") -> FileSet:
    """The images that a list names, in its order. labelled: with their labels, 0..K-1, else -1; classes go by the folders of their images
    where these differ as the labels do. fetch: what a person does about a file that is missing."""
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there{'; ' * bool(fetch)}{fetch}")
    rows = [listed(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not rows:
        raise ValueError(f"{file}: names no images")
    paths = [folder / path for path, _ in rows]
    for number, (path, (name, label)) in enumerate(zip(paths, rows, strict=True), 1):
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{file} line {number}: {name} leads out of {folder}")
        if not path.is_file():
            raise FileNotFoundError(f"{file} line {number}: {path} is not there{'; ' * bool(fetch)}{fetch}")
        if labelled and not label.isdigit():
            raise ValueError(f"{file} line {number}: {label!r} is no label; 0, 1, 2 ... are")
    if not labelled:
        return FileSet.of(ImageFiles(paths), torch.full((len(paths),), -1), ())
    labels = [int(label) for _, label in rows]
    folders = {label: path.parent.name for path, label in zip(paths, labels, strict=True)}
    names = [folders.get(label, str(label)) for label in range(max(labels) + 1)]
    plain = len(set(names)) == len(names) and all(folders[label] == path.parent.name for path, label in zip(paths, labels, strict=True))
    return FileSet.of(ImageFiles(paths), torch.tensor(labels), tuple(names if plain else map(str, range(len(names)))))
