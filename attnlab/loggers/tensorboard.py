"""TensorBoard as a mirror of the run: event files in FOLDER/tensorboard, nothing sent anywhere."""

from __future__ import annotations

import importlib.util
import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


class TensorboardLogger:
    """The same calls as `WandbLogger`, written with torch.utils.tensorboard. ValueError: the tensorboard package is missing.

    A run that goes on after a stop calls `open(resumed=True)` and hands over its whole history again: the earlier points are hidden.
    pictures: figures of a run that are written, at most. predictions: rows of the table of single test images, 0 for none; its pictures
    are left to `figures/`. ValueError: a number below 0.
    """

    def __init__(self, *, pictures: int = 32, predictions: int = 64) -> None:
        for key, number in (("pictures", pictures), ("predictions", predictions)):
            if number < 0:
                raise ValueError(f"{key} must be at least 0, got {number}")
        self.pictures, self.predictions, self._shown = pictures, predictions, 0
        if importlib.util.find_spec("tensorboard") is None:
            raise ValueError("logger=tensorboard needs the tensorboard package: pip install tensorboard")
        self.hint: str | None = None
        self._writer: Any = None
        self._step = 0
        self._rows: set[str] = set()  # keys of the rows so far

    def open(
        self,
        *,
        folder: Path,
        run_id: str,
        name: str,
        config: dict,
        group: str,
        tags: Sequence[str],
        resumed: bool,
        job_type: str = "train",
        notes: str = "",
    ) -> None:
        """Start writing to folder/tensorboard."""
        from omegaconf import OmegaConf
        from torch.utils.tensorboard import SummaryWriter

        self.close(failed=True)
        events = Path(folder) / "tensorboard"
        self._writer, self._step = SummaryWriter(str(events), purge_step=0 if resumed else None), 0
        self._rows, self._shown = set(), 0
        self.hint = f"tensorboard --logdir {shlex.quote(str(events))}"
        about = {"run": name, "id": run_id, "group": group, "tags": list(tags), "kind": job_type, "notes": notes, "config": config}
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
        """A picture from a file; those beyond `pictures` are left out."""
        self._shown += 1
        if self._writer is not None and self._shown <= self.pictures:
            import numpy as np
            from PIL import Image

            with Image.open(path) as image:
                self._writer.add_image(key, np.asarray(image.convert("RGB")), self._step, dataformats="HWC")

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Rows of text and numbers, as Markdown; pictures (arrays of uint8) are left out."""
        if self._writer is None or not rows:
            return
        kept = [i for i in range(len(columns)) if not hasattr(rows[0][i], "shape")]
        lines = [[columns[i] for i in kept], ["---"] * len(kept), *([_written(row[i]) for i in kept] for row in rows)]
        self._writer.add_text(key, "\n".join(f"| {' | '.join(line)} |" for line in lines), self._step)

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

    @staticmethod
    def sweep_hint(folders: Sequence[Path]) -> str | None:
        """What to do after a sweep whose runs lie in `folders`: one line."""
        written = [folder for folder in folders if (folder / "tensorboard").is_dir()]
        return f"tensorboard --logdir {shlex.quote(os.path.commonpath(written))}" if written else None


def _written(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value).replace("|", "\\|")
