"""Weights & Biases as a mirror of the run: what `result.json` and `metrics.csv` hold, for review in a browser. It never stops a run."""

from __future__ import annotations

import logging
import netrc
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

log = logging.getLogger(__name__)

LARGER = re.compile(r"(acc|accuracy|auroc|aupr|aupr_\w+|iou|pointing|energy_inside)$")
SMALLER = re.compile(r"(^|/)loss(/|$)|(nll|ece|brier|fpr95|fpr95_\w+)$")


class WandbLogger:
    """One W&B run for one attnlab run, under the same id.

    project, entity: where the run goes. mode: `online`; `offline` (files under FOLDER/wandb, to be sent with the command in `hint`);
    `auto` is online where credentials are (WANDB_API_KEY, or the W&B host in ~/.netrc), else offline. The environment's WANDB_MODE (also
    `disabled`) goes before mode. tags are added to those the run gives; group replaces the run's. ValueError: a project or tag that W&B
    would refuse.

    A run that goes on after a stop calls `open(resumed=True)` and hands over the rows of its *whole* history again: online, rows that W&B
    has are skipped; offline, the newest folder is complete by itself, because W&B cannot continue an offline run (its issue 4624).
    What goes wrong with W&B (no network, refused login) is logged once as a warning; the run then goes on, offline where possible.
    Nothing of the machine is sent: no console, code, git, host, requirements or system statistics.
    """

    def __init__(
        self,
        *,
        project: str = "attnlab",
        entity: str | None = None,
        mode: Literal["auto", "online", "offline"] = "auto",
        tags: list[str] | None = None,
        group: str | None = None,
    ) -> None:
        if mode not in ("auto", "online", "offline"):
            raise ValueError(f"mode must be auto, online or offline, got {mode!r}")
        if not project or len(project) > 128 or set(project) & set("/\\#?%:"):
            raise ValueError(f"project must be 1 to 128 characters without / \\ # ? % :, got {project!r}")
        for tag in tags or []:
            if not 1 <= len(tag) <= 64:
                raise ValueError(f"a tag must have 1 to 64 characters, got {tag!r}")
        self.project, self.entity, self.mode, self.tags, self.group = project, entity, mode, list(tags or []), group
        self.hint: str | None = None
        self._run: Any = None
        self._sync: str | None = None  # the command that sends what is on disk
        self._defined: set[str] = set()  # keys of the rows so far
        self._step = -1  # of the last row
        self._first = 0  # the first step that W&B does not have
        self._warned = False

    def open(self, *, folder: Path, run_id: str, name: str, config: dict, group: str, tags: Sequence[str], resumed: bool) -> None:
        """Start (or take up) the W&B run `run_id`; its files go to folder/wandb."""
        self.close(failed=True)  # a run left open by a caller that failed
        self._defined, self._step, self._first, self._warned, self.hint = set(), -1, 0, False, None
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
            "tags": tags,
        }
        if mode != "offline":
            self._run = self._try("starting online (offline is tried next)", self._start, folder, mode, about, resumed)
        if self._run is None:
            if mode != "offline":
                self._try("clearing up", self._forget)
            self._run = self._try("starting offline", self._start, folder, "offline", about, resumed)
        if self._run is not None:
            self._try("reading the run", self._read, self._run)

    def log(self, row: Mapping[str, float | None], step: int) -> None:
        """The numbers of epoch `step`; None is left out."""
        if self._run is not None and step > self._step:
            self._step = step
            self._try("log", self._row, {"epoch": step, **{key: value for key, value in row.items() if value is not None}}, step)

    def figure(self, key: str, path: Path) -> None:
        """A picture from a file."""
        if self._run is not None:
            self._try("figure", self._after, key, lambda wandb: wandb.Image(str(path)))

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
        if run is not None and not self._try("finishing", self._finish, run, failed):
            self.hint = self._sync

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

    def _start(self, folder: Path, mode: str, about: Mapping[str, Any], resumed: bool) -> Any:
        # Not a setting: W&B reads it from the environment. Its crash reports hold paths and would be sent by offline runs too.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        wanted = {
            "console": "off", "silent": True, "disable_git": True, "disable_code": True, "save_code": False, "label_disable": True,
            "disable_job_creation": True, "host": "", "x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True,
            "x_save_requirements": False, "init_timeout": 20.0, "finish_timeout": 120.0, "finish_timeout_raises": True,
        }  # fmt: skip
        # Names that start with x_ are not W&B's public interface: one that a release drops must not stop the logging.
        settings = wandb.Settings(**{name: value for name, value in wanted.items() if name in wandb.Settings.model_fields})
        return wandb.init(
            project=self.project,
            entity=self.entity,
            mode=mode,
            dir=str(folder),
            # Not for offline files: sent later, the newest must replace what an earlier one left on the server.
            resume="allow" if resumed and mode != "offline" else None,
            reinit="create_new",
            settings=settings,
            **about,
        )

    def _forget(self) -> None:
        """A start that failed holds its id until W&B's helper process ends."""
        import wandb

        wandb.teardown()

    def _read(self, run: Any) -> None:
        self._sync = f"wandb sync {shlex.quote(str(run.settings.sync_dir))}"
        self.hint = self._sync if run.offline else f"W&B: {run.url}"
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

    def _after(self, key: str, value: Callable[[Any], Any]) -> None:
        """One step after the last epoch gathers all pictures and histograms."""
        import wandb

        self._run.log({key: value(wandb), "epoch": max(self._step, 0)}, step=max(self._step + 1, self._first), commit=False)

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


def has_credentials() -> bool:
    """Whether W&B would find a key for its server: WANDB_API_KEY, an identity token, or the server's host in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    files = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for file in files:
        try:
            if host in netrc.netrc(Path(file).expanduser()).hosts:
                return True
        except (OSError, netrc.NetrcParseError, UnicodeDecodeError, RuntimeError):  # none, unreadable, or no home folder
            continue
    return False


def direction(key: str) -> Literal["max", "min"] | None:
    """Which end of a metric is the good one: max for accuracies and areas, min for losses and errors, None where neither is."""
    return "max" if LARGER.search(key) else "min" if SMALLER.search(key) else None
