"""Weights & Biases as a mirror of the run: what `result.json` and `metrics.csv` hold, for review in a browser. It never stops a run."""

from __future__ import annotations

import logging
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attnlab.loggers.wandb_client import environment, has_credentials, start
from attnlab.loggers.wandb_log import earlier, last_step, set_aside, sync_command

log = logging.getLogger(__name__)

LARGER = re.compile(r"(acc|accuracy|auroc|aupr|aupr_\w+|iou|pointing|energy_inside)$")
SMALLER = re.compile(r"(^|/)loss(/|$)|(nll|ece|brier|fpr95|fpr95_\w+)$")


class WandbLogger:
    """One W&B run for one attnlab run, under the same id.

    project, entity: where the run goes. mode: `online`; `offline` (files under FOLDER/wandb, to be sent with the command in `hint`);
    `auto` is online where credentials are (WANDB_API_KEY, or the W&B host in ~/.netrc), else offline. The environment's WANDB_MODE (also
    `disabled`) goes before mode. tags are added to those the run gives; group replaces the run's. pictures: figures of a run that are
    sent, at most. predictions: rows of the table of single test images, each with its picture and that under the attention, 0 for none.
    ValueError: a project or tag that W&B would refuse, or a number below 0.

    A run that goes on after a stop hands over the rows of its *whole* history again, and is one run of W&B's: rows that W&B has, online or
    from an earlier `wandb sync`, are skipped; an earlier offline folder that was not sent is put aside once the new one holds all of it.
    What goes wrong with W&B (no network, refused login) is logged once as a warning; the run then goes on, offline where possible.
    Nothing of the machine is sent: no console, code, git, host, requirements or system statistics, and no path but those in the
    configuration (where that gives an absolute `paths.outputs`, also the paths of the table's pictures below it).
    """

    def __init__(
        self,
        *,
        project: str = "attnlab",
        entity: str | None = None,
        mode: Literal["auto", "online", "offline"] = "auto",
        tags: list[str] | None = None,
        group: str | None = None,
        pictures: int = 32,
        predictions: int = 64,
    ) -> None:
        if mode not in ("auto", "online", "offline"):
            raise ValueError(f"mode must be auto, online or offline, got {mode!r}")
        if not project or len(project) > 128 or set(project) & set("/\\#?%:"):
            raise ValueError(f"project must be 1 to 128 characters without / \\ # ? % :, got {project!r}")
        for tag in tags or []:
            if not 1 <= len(tag) <= 64:
                raise ValueError(f"a tag must have 1 to 64 characters, got {tag!r}")
        for key, number in (("pictures", pictures), ("predictions", predictions)):
            if number < 0:
                raise ValueError(f"{key} must be at least 0, got {number}")
        self.pictures, self.predictions = pictures, predictions
        self.project, self.entity, self.mode, self.tags, self.group = project, entity, mode, list(tags or []), group
        self.hint: str | None = None
        self._run: Any = None
        self._sync: str | None = None  # the command that sends what is on disk
        self._reset(Path())

    def _reset(self, folder: Path) -> None:
        self.hint, self._folder, self._warned = None, folder, False
        self._defined: set[str] = set()  # keys of the rows so far
        self._step = -1  # of the last row
        self._reached = -1  # the last step that was handed over, with rows or pictures
        self._first = 0  # the first step that W&B does not have
        self._shown = 0  # pictures so far
        self._unsent: list[Path] = []  # files of earlier starts, which hold steps up to ...
        self._covered = -1

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
        """Start (or take up) the W&B run `run_id`; its files go to folder/wandb."""
        self.close(failed=True)  # a run left open by a caller that failed
        self._reset(Path(folder))
        mode = self._mode()
        if mode is None:
            return
        tags = list(dict.fromkeys(tag[:64] for tag in [*tags, *self.tags] if tag))
        # W&B takes ids of 64 characters without / \ # ? % : at most; the end of ours is the hash, so that is kept.
        about = {
            "id": re.sub(r"[^\w.-]", "-", run_id)[-64:],
            "name": name[:128],
            "config": config,
            "group": (self.group or group)[:128] or None,
            "job_type": job_type,
            "notes": notes or None,
            "tags": tags,
        }
        self._try("reading what was sent before", self._look_back, about["id"])
        if mode != "offline":
            self._run = self._try("starting online (offline is tried next)", self._start, mode, about)
        if self._run is None:
            if mode != "offline":
                self._try("clearing up", self._forget)
            self._run = self._try("starting offline", self._start, "offline", about)
        if self._run is not None:
            self._try("reading the run", self._read, self._run)

    def log(self, row: Mapping[str, float | None], step: int) -> None:
        """The numbers of epoch `step`; None is left out."""
        if self._run is not None and step > self._step:
            self._step = step
            self._try("log", self._row, {"epoch": step, **{key: value for key, value in row.items() if value is not None}}, step)

    def figure(self, key: str, path: Path) -> None:
        """A picture from a file; those beyond `pictures` are left out."""
        if self._run is None:
            return
        self._shown += 1
        if self._shown <= self.pictures:
            self._try("figure", self._after, key, lambda wandb: wandb.Image(str(path)))

    def table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Rows of text, numbers (None: not known) and pictures, which are arrays (H, W, 3) of uint8."""
        if self._run is not None:
            self._try("table", self._table, key, columns, rows)

    def histogram(self, key: str, values: Any) -> None:
        """64 equal bins over the finite ones of `values` (tensor, array or list); none, no histogram."""
        if self._run is not None:
            self._try("histogram", self._bins, key, values)

    def summary(self, values: Mapping[str, float | None]) -> None:
        """The final numbers, with their direction (max for acc and auroc, min for loss, nll and ece).

        What came with the rows is left to them: W&B keeps its last and its best value, as KEY.last and KEY.max or KEY.min.
        """
        if self._run is not None:
            self._try("summary", self._final, {key: value for key, value in values.items() if value is not None})

    def close(self, failed: bool) -> None:
        """End the W&B run, as failed or not. A second call does nothing."""
        run, self._run = self._run, None
        if run is None:
            return
        if self._shown > self.pictures:
            log.info("W&B: %d of %d pictures (logger.pictures=%d)", self.pictures, self._shown, self.pictures)
        if not self._try("finishing", self._finish, run, failed):
            self.hint = self._sync
        self._try("putting earlier files aside", self._supersede)

    @staticmethod
    def sweep_hint(folders: Sequence[Path]) -> str | None:
        """What to do after a sweep whose runs lie in `folders`: one line."""
        return sync_command(folders)

    def _mode(self) -> Literal["online", "offline"] | None:
        mode = os.environ.get("WANDB_MODE") or self.mode
        mode = {"run": "online", "dryrun": "offline"}.get(mode, mode)  # their old names
        if mode == "auto":
            return "online" if has_credentials() else "offline"
        if mode == "online" and not has_credentials():  # W&B would ask at the terminal, and a job would wait for ever
            self._warn("W&B: no credentials (`wandb login` stores them), logging offline")
            return "offline"
        if mode not in ("online", "offline", "disabled"):
            self._warn(f"W&B: WANDB_MODE must be online, offline or disabled, got {mode!r}; nothing is logged there")
        return mode if mode in ("online", "offline") else None

    # What talks to W&B; called through _try alone.

    def _look_back(self, run_id: str) -> None:
        sent, self._unsent = earlier(self._folder, run_id)
        self._first = 1 + max(map(last_step, sent), default=-1)
        self._covered = max(map(last_step, self._unsent), default=-1)

    def _supersede(self) -> None:
        if self._unsent and self._reached >= self._covered:
            unsent, self._unsent = self._unsent, []
            set_aside(unsent)

    def _start(self, mode: str, about: Mapping[str, Any]) -> Any:
        return start(self._folder, mode, project=self.project, entity=self.entity, **about)

    def _forget(self) -> None:
        """A start that failed holds its id until W&B's helper process ends."""
        import wandb

        wandb.teardown()

    def _read(self, run: Any) -> None:
        self._sync = f"wandb sync {shlex.quote(str(run.settings.sync_dir))}"
        self.hint = self._sync if run.offline else f"W&B: {run.url}"
        if not run.offline:
            self._first = int(run.step)
        run.define_metric("epoch", hidden=True)

    def _finish(self, run: Any, failed: bool) -> bool:
        run.finish(exit_code=int(failed))
        return True

    def _row(self, row: Mapping[str, float], step: int) -> None:
        for key in row.keys() - self._defined - {"epoch"}:
            way = direction(key)
            self._run.define_metric(key, step_metric="epoch", summary=f"{way},last" if way else None)
            self._defined.add(key)
        if step >= self._first:
            self._run.log(dict(row), step=step, commit=True)
        self._reached = max(self._reached, step)
        self._supersede()

    def _after(self, key: str, value: Callable[[Any], Any]) -> None:
        """One step after the last epoch gathers all pictures, tables and histograms."""
        import wandb

        self._reached = max(self._step + 1, self._first)
        self._run.log({key: value(wandb), "epoch": max(self._step, 0)}, step=self._reached, commit=False)

    def _table(self, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        import wandb

        table = wandb.Table(columns=list(columns), data=[[_cell(value) for value in row] for row in rows])
        # W&B would make an artifact of its own of it, whose files lie in the user's home.
        self._store(f"{key}-{self._run.id}", {key: table}, kind="run_table")
        table.bind_to_run(self._run, key, max(self._step + 1, self._first))
        self._after(key, lambda _: table)

    def _store(self, name: str, tables: Mapping[str, Any], *, kind: str) -> None:
        """An artifact of wandb.Tables. Its files lie beside the run until they are sent, and go with it: by paths as relative as the
        run's folder is."""
        import wandb

        with environment("WANDB_DATA_DIR", str((self._folder / "wandb" / "data").absolute())):
            artifact = wandb.Artifact(re.sub(r"[^\w.-]+", "_", name, flags=re.ASCII)[-128:], type=kind)
            for key, table in tables.items():
                artifact.add(table, key)
            if not self._folder.is_absolute():
                for entry in artifact.manifest.entries.values():
                    entry.local_path = entry.local_path and os.path.relpath(entry.local_path)
            self._run.log_artifact(artifact)

    def _bins(self, key: str, values: Any) -> None:
        import numpy as np

        if hasattr(values, "detach"):
            values = values.detach().cpu().double().numpy()
        values = np.asarray(values, dtype=np.float64).ravel()
        if np.isfinite(values).any():
            bins = np.histogram(values[np.isfinite(values)], bins=64)
            self._after(key, lambda wandb: wandb.Histogram(np_histogram=bins))

    def _final(self, values: Mapping[str, float]) -> None:
        values = {key: value for key, value in values.items() if key not in self._defined}
        for key in values:
            if way := direction(key):
                self._run.define_metric(key, summary=way)
        self._run.summary.update(values)

    def _try(self, what: str, call: Callable[..., Any], *args: Any, **options: Any) -> Any:
        try:
            return call(*args, **options)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            self._warn(f"W&B: {what} failed, the run goes on: {type(error).__name__}: {reason}")

    def _warn(self, message: str) -> None:
        log.log(logging.DEBUG if self._warned else logging.WARNING, message)
        self._warned = True


def _cell(value: Any) -> Any:
    import wandb

    return wandb.Image(value) if hasattr(value, "shape") and len(value.shape) == 3 else value


def direction(key: str) -> Literal["max", "min"] | None:
    """Which end of a metric is the good one: max for accuracies and areas, min for losses and errors, None where neither is."""
    return "max" if LARGER.search(key) else "min" if SMALLER.search(key) else None
