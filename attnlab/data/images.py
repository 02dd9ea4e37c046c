"""Sets of images: in memory (ImageSet), or encoded until they are needed (FileSet).

Legend: N images of the set, C channels, H height, W width.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

GREY_MODES = ("1", "L", "LA", "I", "I;16", "F")  # Pillow's


@dataclass(frozen=True)
class ImageSet:
    """Images in memory. `images` (N, C, H, W) uint8 in channels_last memory, or (N, D) float32 vectors; `labels` (N,) int64, -1 where
    there is none; `boxes` (N, 4) float32 (x0, y0, x1, y1), edges in pixels of the stored image, NaN where an image has none, or None;
    `groups` (N,) int64, which subgroup of the population an image is of, whatever its class, or None."""

    images: Tensor
    labels: Tensor
    boxes: Tensor | None = None
    classes: tuple[str, ...] = ()
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.images.shape[1:])

    def subset(self, index: Tensor) -> "ImageSet":
        images = self.images[index]
        if images.ndim == 4:
            images = images.contiguous(memory_format=torch.channels_last)
        boxes = None if self.boxes is None else self.boxes[index]
        groups = None if self.groups is None else self.groups[index]
        return ImageSet(images, self.labels[index], boxes, self.classes, groups)

    def decoded(self, index: int) -> np.ndarray:
        return self.images[index].permute(1, 2, 0).numpy()

    def digest(self) -> str:
        """16 hex digits of SHA-256 over the pixels and labels."""
        pixels = self.images.permute(0, 2, 3, 1) if self.images.ndim == 4 else self.images  # as they lie in memory: no copy
        found = hashlib.sha256(pixels.contiguous().numpy())
        found.update(self.labels.contiguous().numpy())
        return found.hexdigest()[:16]

    def in_memory(self) -> "ImageSet":
        return self


class Files(Protocol):
    """Where a FileSet's images come from."""

    def __len__(self) -> int: ...
    def open(self, index: int):  # -> PIL.Image.Image, not yet decoded
        ...

    def where(self, index: int) -> str:
        """The place of image `index`, for messages."""
        ...

    def digest(self, rows: np.ndarray) -> str:
        """`stored:` or `listed:` and hex digits, of these images; see `attnlab.records.images`."""
        ...


def channels_of(image) -> int:
    """1 or 3, from a Pillow image's header."""
    return 1 if image.mode in GREY_MODES else 3


@dataclass(frozen=True)
class FileSet:
    """Encoded images with their labels; decoded to `shape` on demand. `raw_boxes` are in pixels of the original images.

    `fit="stretch"` resizes to (H, W) whatever the proportions; `"crop"` first cuts the largest centred window of the right proportions.
    Resizing is bilinear with antialiasing (Pillow). `resize=False` demands that every image has the shape already, `to_grey=False` that
    no image loses its colours by it. (Grey images among coloured ones are taken as they are, three times.)
    """

    files: Files
    index: np.ndarray  # (N,) rows of `files`
    labels: Tensor
    raw_boxes: Tensor | None
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    fit: Literal["stretch", "crop"] = "stretch"
    resize: bool = False
    to_grey: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    def digest(self) -> str:
        """Of the images as they are stored, and their labels."""
        word, _, hexadecimal = self.files.digest(self.index).partition(":")
        found = hashlib.sha256(hexadecimal.encode())
        found.update(self.labels.contiguous().numpy())
        return f"{word}:{found.hexdigest()[:16]}"

    def subset(self, index: Tensor) -> "FileSet":
        raw_boxes = None if self.raw_boxes is None else self.raw_boxes[index]
        return replace(self, index=self.index[index.numpy()], labels=self.labels[index], raw_boxes=raw_boxes)

    def window(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The part (x0, y0, x1, y1) of an original image that is kept."""
        _, H, W = self.shape
        if self.fit == "stretch":
            return 0.0, 0.0, float(width), float(height)
        scale = min(width / W, height / H)
        x0, y0 = (width - W * scale) / 2, (height - H * scale) / 2
        return x0, y0, x0 + W * scale, y0 + H * scale

    def original(self, index: int):
        """The image as a Pillow image of the right number of channels, unresized. ValueError naming the file if it cannot be read."""
        image = self._opened(index, load=True)
        mode = "L" if self.shape[0] == 1 else "RGB"
        if mode == "L" and channels_of(image) == 3 and not self.to_grey:
            raise ValueError(f"{self.where(index)}: image is in colour, the first one is grey; set data.channels to 1 or 3")
        return image if image.mode == mode else image.convert(mode)

    def where(self, index: int) -> str:
        return self.files.where(int(self.index[index]))

    def _opened(self, index: int, *, load: bool = False):
        try:
            image = self.files.open(int(self.index[index]))
            if load:
                image.load()
        except Exception as error:  # Pillow raises whatever its decoders raise
            cause = type(error).__name__ if not str(error) or "BytesIO" in str(error) else str(error).splitlines()[0]
            raise ValueError(f"{self.where(index)}: unreadable image ({cause}); repair or remove it") from error
        return image

    def decoded(self, index: int) -> np.ndarray:
        return self._decode(index)[0]

    def _decode(self, index: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Pixels (H, W, C) and the original (width, height)."""
        from PIL import Image

        C, H, W = self.shape
        image = self.original(index)
        size = image.size
        if size != (W, H):
            if not self.resize:
                raise ValueError(f"{self.where(index)}: image is {size[0]}x{size[1]}, others are {W}x{H}; set data.size to resize them all")
            image = image.resize((W, H), Image.Resampling.BILINEAR, box=self.window(*size))
        return np.asarray(image).reshape(H, W, C), size

    @staticmethod
    def of(files: Files, labels: Tensor, classes: tuple[str, ...], raw_boxes: Tensor | None = None) -> "FileSet":
        """All images of `files`, in the shape of the first."""
        index = np.arange(len(files))
        first = FileSet(files, index, labels, raw_boxes, classes, (3, 1, 1)).header(0) if len(files) else (3, 1, 1)
        return FileSet(files, index, labels, raw_boxes, classes, first)

    def header(self, index: int) -> tuple[int, int, int]:
        """(C, H, W) of an original image, without decoding it."""
        image = self._opened(index)
        return channels_of(image), image.height, image.width

    def scaled(self, sizes_N2: np.ndarray) -> Tensor | None:
        """The boxes in pixels of the decoded images; `sizes_N2` holds the original (width, height)."""
        if self.raw_boxes is None:
            return None
        _, H, W = self.shape
        window_N4 = torch.tensor([self.window(*size) for size in sizes_N2.tolist()], dtype=torch.float32)
        origin_N4 = window_N4[:, :2].repeat(1, 2)
        extent_N4 = (window_N4[:, 2:] - window_N4[:, :2]).repeat(1, 2)
        target_4 = torch.tensor([W, H, W, H], dtype=torch.float32)
        return ((self.raw_boxes - origin_N4) / extent_N4 * target_4).clamp(min=torch.zeros(4), max=target_4)

    @property
    def boxes(self) -> Tensor | None:
        """As in ImageSet. Reads every image's header."""
        if self.raw_boxes is None:
            return None
        with _threads() as pool:
            shapes = np.array(list(pool.map(self.header, range(len(self)))))
        return self.scaled(shapes[:, :0:-1])

    def in_memory(self) -> ImageSet:
        """Everything decoded, by threads (Pillow's decoders let go of the interpreter lock)."""
        C, H, W = self.shape
        images = np.empty((len(self), H, W, C), dtype=np.uint8)
        sizes = np.empty((len(self), 2), dtype=np.int64)

        def decode(start: int) -> None:
            for k in range(start, min(start + 256, len(self))):
                images[k], sizes[k] = self._decode(k)

        with _threads() as pool:
            for _ in pool.map(decode, range(0, len(self), 256)):
                pass  # fetching a result raises what went wrong, the first bad image first
        return ImageSet(torch.from_numpy(images).permute(0, 3, 1, 2), self.labels, self.scaled(sizes), self.classes)


def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1)))
