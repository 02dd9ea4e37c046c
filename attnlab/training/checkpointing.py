"""How Lightning's checkpoints get to the disk: sealed with a digest, whole or not at all, written beside their place."""

from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from attnlab.records.atomic import atomic_file
from attnlab.records.checkpoint import seal


class CheckpointWriter(TorchCheckpointIO):
    """Lightning's own writes through the system's folder for temporary files, which a kill leaves full, and flushes nothing."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        seal(checkpoint)
        with atomic_file(Path(path)) as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # of a disk that is full: torch reports its own count of bytes
                if isinstance(error.__context__, OSError):
                    raise error.__context__ from None
                raise
