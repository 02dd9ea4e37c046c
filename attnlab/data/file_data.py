"""Fields common to the data sets whose images are files of any size."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from attnlab.data.base import FileSet, ImageData


@dataclass(kw_only=True, eq=False, repr=False)
class FileData(ImageData):
    """size: side of the square that all images are resized to; null keeps them, and demands that all have one size.
    fit: how a picture of other proportions becomes square, `stretch` or `crop` (largest centred square). Boxes follow.
    channels: 1 (grey) or 3 (RGB); null takes the first training image's, and demands that all agree.
    min_scale: above 0, training images are random resized crops of that share of the area or more (0.08 for ImageNet); always streamed.
    """

    size: int | None = None
    fit: Literal["stretch", "crop"] = "stretch"
    channels: Literal[1, 3] | None = None
    min_scale: float = 0.0

    def __post_init__(self):
        super().__post_init__()
        if self.size is not None and self.size < 1:
            raise ValueError(f"size must be at least 1 pixel, or null to keep the images' size, got {self.size}")
        if self.fit not in ("stretch", "crop"):
            raise ValueError(f"fit is stretch or crop, got {self.fit!r}")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"channels is 1, 3 or null, got {self.channels}")
        if not 0 <= self.min_scale <= 1:
            raise ValueError(f"min_scale is a share of the image's area in [0, 1], got {self.min_scale}")
        if self.min_scale and self.size is None:
            raise ValueError("min_scale needs data.size, the side of the crops after resizing")

    def formatted(self, images: FileSet, split: str) -> FileSet:
        """The set at this data set's size and channels; those of the first training image where they are left open."""
        C, H, W = images.shape
        if self.channels is not None:
            C = self.channels
        elif split != "train":
            C = self.shape[0]
        shape = (C, H, W) if self.size is None else (C, self.size, self.size)
        return replace(images, shape=shape, fit=self.fit, resize=self.size is not None, to_grey=self.channels == 1)


def existing(path: str, *, what: str) -> Path:
    """The path, or an error that says where it was looked for."""
    found = Path(path).expanduser()
    if not found.exists():
        raise FileNotFoundError(f"data.path: {path} does not exist (looked at {found.absolute()}); it should be {what}")
    return found
