"""The data set `parquet`: image files in parquet, in the layout of Hugging Face's image data sets (see `attnlab.data.readers.parquet`)."""

from dataclasses import dataclass
from pathlib import Path

from attnlab.data.file_data import FileData, existing
from attnlab.data.images import FileSet
from attnlab.data.readers.parquet import find_splits, read


@dataclass(kw_only=True, eq=False, repr=False)
class Parquet(FileData):
    """path: folder of the files. test_file: take this file of the folder as the test split. image_column, label_column: their names.
    box_column: column with (x0, y0, x1, y1) in pixels of the stored images, for localisation; null = no boxes.

    OOD sets: `photos`, and every folder of parquet files beside `path`.
    """

    path: str
    test_file: str | None = None
    image_column: str = "image"
    label_column: str = "label"
    box_column: str | None = None

    @property
    def name(self) -> str:
        return Path(self.path).expanduser().absolute().name

    def own_splits(self) -> tuple[str, ...]:
        return tuple(self._files())

    def load(self, split: str) -> FileSet:
        files = self._files()
        if "train" not in files:
            there = ", ".join(sorted(file.name for group in files.values() for file in group)) or "no parquet file of a split"
            raise ValueError(f"{self.path}: no train.parquet to train on (there is {there}); choose another data.path")
        images = read(files[split], image_column=self.image_column, label_column=self.label_column, box_column=self.box_column)
        return self.formatted(images, split)

    def sources(self) -> list[Path]:
        return [*(file for files in self._files().values() for file in files), *super().sources()]

    def _files(self) -> dict[str, list[Path]]:
        folder = existing(self.path, what="a folder with train.parquet and test.parquet")
        if folder.is_file():
            raise ValueError(f"path: {self.path} is a file; give the folder that holds train.parquet and test.parquet")
        splits = find_splits(folder)
        if self.test_file is not None:
            file = folder / self.test_file
            if not file.is_file():
                raise FileNotFoundError(f"data.test_file: {file} does not exist; the folder holds {', '.join(_listing(folder))}")
            splits["test"] = [file]
        return splits


def _listing(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.glob("*.parquet")) or ["no parquet file"]
