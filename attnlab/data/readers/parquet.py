"""Images in parquet files, in the layout of Hugging Face's image data sets.

A folder with `train.parquet`, `test.parquet` and perhaps `val.parquet` (or shards `train-00000-of-00002.parquet`; a subfolder `data`
is looked into as well). Column `image` is struct{bytes, path} or the bytes alone, encoded as PNG, JPEG or whatever Pillow reads; column
`label` holds integers, named by the schema's ClassLabel where there is one. The encoded files are held in memory.
"""

import hashlib
import io
import json
import re
from pathlib import Path

import numpy as np
import torch

from attnlab.data.images import FileSet

SPLIT_FILE = re.compile(r"(train|test|val|valid|validation)(-\d+-of-\d+)?\.parquet")


def find_splits(folder: Path) -> dict[str, list[Path]]:
    """Parquet files of a folder (or of its subfolder `data`) by split: any of train, val, test."""
    splits: dict[str, list[Path]] = {}
    for file in sorted([*folder.glob("*.parquet"), *folder.glob("data/*.parquet")]):
        if match := SPLIT_FILE.fullmatch(file.name):
            split = "val" if match[1].startswith("val") else match[1]
            splits.setdefault(split, []).append(file)
    return splits


class ParquetImages:
    """The encoded images of some files, in order."""

    def __init__(self, files: list[Path], encoded: list[list[bytes | None]]):
        self.files = files
        self.starts = np.cumsum([0, *(len(part) for part in encoded)])
        self.encoded = [image for part in encoded for image in part]

    def __len__(self) -> int:
        return len(self.encoded)

    def open(self, index: int):
        from PIL import Image

        if self.encoded[index] is None:
            raise ValueError("the row has no image bytes")
        return Image.open(io.BytesIO(self.encoded[index]))

    def digest(self, rows: np.ndarray) -> str:
        """They are in memory: of every byte."""
        found = hashlib.sha256()
        for row in rows.tolist():
            content = self.encoded[row] or b""
            found.update(len(content).to_bytes(8, "little"))
            found.update(content)
        return f"stored:{found.hexdigest()}"

    def where(self, index: int) -> str:
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return f"{self.files[part]} row {index - self.starts[part]}"


def read(
    files: list[Path], *, image_column: str | None = None, label_column: str | None = "label", box_column: str | None = None
) -> FileSet:
    """One split. `image_column=None`: the first column of images; `label_column=None`: labels -1. ValueError for what does not fit."""
    encoded, labels, boxes, names = [], [], [], ()
    for file in files:
        table = _table(file)
        column = image_column or next((name for name in table.column_names if _image_type(table, name)), "image")
        wanted = [name for name in (column, label_column, box_column) if name is not None]
        if missing := [name for name in wanted if name not in table.column_names]:
            raise ValueError(
                f"{file}: no column {missing[0]!r}, the columns are {', '.join(table.column_names)}; "
                "set data.image_column, data.label_column or data.box_column"
            )
        if not _image_type(table, column):
            raise ValueError(f"{file}: column {column!r} is {table.schema.field(column).type}, not image bytes or struct{{bytes, path}}")
        images = table[column].combine_chunks()
        encoded.append((images.field("bytes") if images.type.num_fields else images).to_pylist())
        if label_column is not None:
            labels.append(_labels(file, table, label_column))
            names = names or _class_names(table, label_column)
        if box_column is not None:
            boxes.append(_boxes(file, table, box_column))
    source = ParquetImages(files, encoded)
    label_N = torch.from_numpy(np.concatenate(labels)) if labels else torch.full((len(source),), -1)
    if label_column is not None and not names:
        names = tuple(str(k) for k in range(int(label_N.max()) + 1 if len(label_N) else 0))
    box_N4 = torch.from_numpy(np.concatenate(boxes)) if boxes else None
    return FileSet.of(source, label_N, names, None if box_N4 is None or box_N4.isnan().all() else box_N4)


def _table(file: Path):
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file).read()
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{file}: not a readable parquet file ({str(error).splitlines()[0]}); fetch it again") from error


def _image_type(table, name: str) -> bool:
    """Whether the column can hold encoded images."""
    import pyarrow.types as types

    if name not in table.column_names:
        return False
    kind = table.schema.field(name).type
    if types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and (types.is_binary(kind.field(place).type) or types.is_large_binary(kind.field(place).type))
    return types.is_binary(kind) or types.is_large_binary(kind)


def _labels(file: Path, table, name: str) -> np.ndarray:
    import pyarrow.types as types

    column = table[name]
    if not types.is_integer(column.type):
        raise ValueError(f"{file}: column {name!r} is {column.type}, labels must be integers; set data.label_column")
    if column.null_count:
        raise ValueError(f"{file}: column {name!r} has {column.null_count} empty labels; remove those rows")
    return column.to_numpy().astype(np.int64)


def _boxes(file: Path, table, name: str) -> np.ndarray:
    """(N, 4) float32, NaN for rows without a box."""
    rows = table[name].to_pylist()
    if any(row is not None and (not isinstance(row, list) or len(row) not in (0, 4)) for row in rows):
        raise ValueError(f"{file}: column {name!r} does not hold boxes of four numbers (x0, y0, x1, y1); set data.box_column")
    return np.array([row if row else [np.nan] * 4 for row in rows], dtype=np.float32).reshape(len(rows), 4)


def _class_names(table, name: str) -> tuple[str, ...]:
    """From the `huggingface` schema metadata, empty where there are none."""
    try:
        features = json.loads((table.schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(features[name]["names"])
    except (KeyError, TypeError, ValueError):
        return ()
