"""Images in folders: `path/train/<class>/*.png`, `path/test/<class>/*.png` and perhaps `path/val/<class>/*.png`."""

from dataclasses import dataclass
from pathlib import Path

from attnlab.data.file_data import FileData, existing
from attnlab.data.images import FileSet
from attnlab.data.readers.folder import read


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

    def sources(self) -> list[Path]:
        return [*(Path(self.path).expanduser() / split for split in self.own_splits()), *super().sources()]

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
