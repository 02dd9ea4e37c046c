"""TensorBoard as a mirror of the run: event files in FOLDER/tensorboard, nothing sent anywhere."""

from __future__ import annotations

import importlib.util
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class TensorboardLogger:
    """The same calls as `WandbLogger`, written with torch.utils.tensorboard. ValueError: the tensorboard package is missing.

    A run that goes on after a stop calls `open(resumed=True)` and hands over its whole history again: the earlier points are hidden.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ValueError("logger=tensorboard needs the tensorboard package: pip install tensorboard")
        self.hint: str | None = None
        self._writer: Any = None
        self._step = 0
        self._rows: set[str] = set()  # keys of the rows so far

    def open(self, *, folder: Path, run_id: str, name: str, config: dict, group: str, tags: Sequence[str], resumed: bool) -> None:
        """Start writing to folder/tensorboard."""
        from omegaconf import OmegaConf
        from torch.utils.tensorboard import SummaryWriter

        self.close(failed=True)
        events = Path(folder) / "tensorboard"
        self._writer, self._step = SummaryWriter(str(events), purge_step=0 if resumed else None), 0
        self._rows = set()
        self.hint = f"tensorboard --logdir {shlex.quote(str(events))}"
        about = {"run": name, "id": run_id, "group": group, "tags": list(tags), "config": config}
        self._writer.add_text("config", "    " + OmegaConf.to_yaml(OmegaConf.create(about)).replace("\n", "\n    "))

    def log(self, row: Mapping[str, float | None], step: int) -> None:
        """The numbers of epoch `step`; None is left out."""
        if self._writer is None:
            return
        self._step = step
        for key, value in row.items():
            if value is not None and key != "epoch":
                self._writer.add_scalar(key, value, step)
                self._rows.add(key)
        self._writer.flush()

    def figure(self, key: str, path: Path) -> None:
        """A picture from a file."""
        if self._writer is not None:
            import numpy as np
            from PIL import Image

            with Image.open(path) as image:
                self._writer.add_image(key, np.asarray(image.convert("RGB")), self._step, dataformats="HWC")

    def histogram(self, key: str, values: Any) -> None:
        """The finite ones of `values` (tensor, array or list)."""
        if self._writer is not None:
            import numpy as np

            if hasattr(values, "detach"):
                values = values.detach().cpu().double().numpy()
            values = np.asarray(values, dtype=np.float64).ravel()
            if np.isfinite(values).any():
                self._writer.add_histogram(key, values[np.isfinite(values)], self._step, bins="auto")

    def summary(self, values: Mapping[str, float | None]) -> None:
        """The final numbers, at the last epoch, less those that came with the rows."""
        if self._writer is not None:
            for key, value in values.items():
                if value is not None and key not in self._rows:
                    self._writer.add_scalar(key, value, self._step)

    def close(self, failed: bool) -> None:
        """Write what is left. A second call does nothing."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
