"""Guard: between Hydra's sweeper and its launcher. Jobs that are finished or misconfigured never reach the launcher."""

import contextlib
import copy
import logging
import os
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attnlab.config.checks import check
from attnlab.config.compose import typed, unresolved, without_hydra
from attnlab.config.plan import Plan
from attnlab.config.targets import ConfigError
from attnlab.records.lookup import finished, record_of
from attnlab.sweeps.journal import DONE, FAILED, HALTED, RESUMED, SKIPPED, Job, Journal, first_line
from attnlab.sweeps.task import Task
from attnlab.sweeps.unchosen import chosen_components, without_unchosen

log = logging.getLogger("attnlab")


class Guard:
    """A launcher around a launcher: looks at every job first, lets through what has to run, and records how each job ended."""

    def __init__(self, inner: Any, *, context: Any, config: Any, task: Task) -> None:
        self.inner, self.context, self.config, self.task = inner, context, config, task
        self.jobs: list[Job] = []
        self.require: Callable[[Plan], None] | None = None  # a sweeper's own condition; its ConfigError is the job's failure
        self.chosen: set[str] = set()  # components of any job so far
        self.stamps: dict[str, str] = {}
        self.count = 0
        sweeps = Path(str(config.hydra.sweep.dir))
        self.journal = task.journal = Journal(sweeps / f"sweep-{socket.gethostname()}-{os.getpid()}")
        self.journal.clear()  # a killed process may have had our number
        _clear_left_over(sweeps)
        self.loader = context.config_loader
        self.composed: dict[tuple[str, ...], Any] = {}
        self.loader.load_sweep_config = self._compose  # the sweeper composes every job to validate it: once is enough

    def _compose(self, master_config: Any, sweep_overrides: list[str]) -> Any:
        config = type(self.loader).load_sweep_config(self.loader, master_config, sweep_overrides)
        self.composed[tuple(sweep_overrides)] = config
        return config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        self.loader.__dict__.pop("load_sweep_config", None)  # other processes get the loader, not us
        jobs = [Job(tuple(overrides)) for overrides in job_overrides]
        self.jobs += jobs
        try:
            self.compose(jobs)
            for job in jobs:
                self.look(job)
            todo = self.single([job for job in jobs if not job.outcome])
            tries = 1 + max((job.plan.full["retries"] for job in todo), default=0)
            while todo and tries and not self.stops(jobs):
                self.run(todo)
                tries -= 1
                todo = [job for job in todo if job.outcome == FAILED and not job.log and job.plan.full["retries"]]  # lost by the launcher
        finally:
            self.loader.load_sweep_config = self._compose
            for job in jobs:
                job.take_over()
        return [self._returned(job) for job in jobs]

    def stops(self, jobs: Sequence[Job]) -> bool:
        return any(job.outcome == FAILED for job in jobs) and any(job.plan and job.plan.full["fail_fast"] for job in jobs)

    def compose(self, jobs: Sequence[Job]) -> None:
        """The config of each job, without overrides of components that others of the sweep choose and it does not."""
        for job in jobs:
            job.config = self._config_of(job)
        chosen = [chosen_components(job.config) for job in jobs]
        self.chosen.update(*chosen)
        dropped: Counter[str] = Counter()
        for job, own in zip(jobs, chosen, strict=True):
            kept = without_unchosen(job.overrides, own, self.chosen)
            dropped.update(typed(text).partition("=")[0] for text in job.overrides if text not in kept)
            if kept != job.overrides:
                job.overrides = kept
                job.config = self._config_of(job)
        if dropped:
            counted = ", ".join(f"{key} (in {count})" for key, count in dropped.items())
            log.info("of %d jobs, overrides are dropped where the component is not chosen: %s", len(jobs), counted)

    def _config_of(self, job: Job) -> Any:
        return self.composed.pop(job.overrides, None) or self.composed_anew(job.overrides)

    def composed_anew(self, overrides: Sequence[str]) -> Any:
        """The config of a job of these overrides; `_compose` is not asked, which would keep it."""
        return type(self.loader).load_sweep_config(self.loader, self.config, list(overrides))

    def single(self, jobs: Sequence[Job]) -> list[Job]:
        """One job of those that are one run; the others take over how it ends."""
        first: dict[Path, Job] = {}
        for job in jobs:
            job.same_as = first.setdefault(record_of(job.plan).folder, job)
        return [job for job in jobs if job.same_as is job]

    def look(self, job: Job) -> None:
        """The plan of a job; its outcome, where that is known without running it."""
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import open_dict

        config = job.config
        self.count += 1
        job.number = self.count
        with open_dict(config):
            config.hydra.job.num, config.hydra.job.id = job.number, str(job.number)
        instance = HydraConfig.instance()
        before = instance.cfg
        instance.set_config(config)
        job.started = time.time()
        try:
            words = [typed(text) for text in unresolved(config.hydra.overrides.task)]
            job.plan = check(without_hydra(config), choices=config.hydra.runtime.choices, overrides=words)
            if job.plan.full["retries"] < 0:
                raise ConfigError(f"retries={job.plan.full['retries']}: must be 0 or more")
            if self.require:
                self.require(job.plan)
            found = finished(job.plan, stamps=self.stamps)
        except Exception as error:
            self.journal.failure(job, error)
            return
        finally:
            instance.cfg = before
        if found:
            record, stored = found
            job.outcome, job.value = SKIPPED, stored["metrics"].get(job.plan.full["objective"])
            log.info("%s: finished before; nothing to do (force=true runs afresh)", record.run_id)
            print(record.result_path, flush=True)

    def run(self, jobs: list[Job]) -> None:
        """Hand jobs to the launcher and read how each ended, however the launcher ends."""
        first = self.count + 1
        for job in jobs:
            self.count += 1
            job.number, job.outcome, job.error = self.count, "", ""
        self.journal.folder.mkdir(parents=True, exist_ok=True)
        if hasattr(self.inner, "accept"):  # a launcher of ours, which composes nothing again
            self.inner.accept(jobs)
        returns: Sequence[Any] = ()
        lost: Exception | None = None
        try:
            returns = self.inner.launch([list(job.overrides) for job in jobs], initial_job_idx=first)
        except Exception as error:  # a worker was killed, or the cluster refused the job
            lost = error
        finally:
            unreported = [job for job in jobs if not self._read(job)]
        values = {job.number: returned._return_value for job, returned in zip(jobs, returns)}
        for job in unreported:
            if lost:
                job.outcome, job.error = FAILED, f"{type(self.inner).__name__} lost it: {first_line(lost)}"
            elif isinstance(values.get(job.number), BaseException):
                job.outcome, job.error = FAILED, first_line(values[job.number])
            elif job.number in values:  # a host that does not see our disk
                job.outcome, job.value = DONE, values[job.number]
        for job in jobs:
            if job.outcome in (DONE, RESUMED, HALTED):
                self.journal.failure_log(job.overrides).unlink(missing_ok=True)

    def _read(self, job: Job) -> bool:
        entry = self.journal.read(job.number)
        for key, value in entry.items():
            setattr(job, key, value)
        return bool(entry)

    def _returned(self, job: Job) -> Any:
        """The return value for the sweeper; a job that failed has none, and stops no other."""
        from hydra.core.utils import JobReturn, JobRuntime, JobStatus

        return JobReturn(
            overrides=list(job.overrides),
            cfg=without_hydra(job.config),
            hydra_cfg=job.config,
            working_dir=os.getcwd(),
            task_name=JobRuntime.instance().get("name"),
            status=JobStatus.COMPLETED,
            _return_value=copy.copy(job.value),
        )

    def close(self) -> None:
        """Leave no file of our own behind but logs of failures."""
        self.loader.__dict__.pop("load_sweep_config", None)
        if hasattr(self.inner, "close"):
            self.inner.close()
        self.journal.clear()
        folder = self.journal.folder.parent
        if folder.name == ".hydra":  # ours; every record holds more than Hydra's copy of the command
            (folder / "multirun.yaml").unlink(missing_ok=True)
        for empty in (folder / "failed", folder):
            with contextlib.suppress(OSError):
                empty.rmdir()


def _clear_left_over(folder: Path) -> None:
    """Journals of sweeps on this host that were killed."""
    for path in folder.glob(f"sweep-{socket.gethostname()}-*"):
        try:
            os.kill(int(path.name.rpartition("-")[2]), 0)
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except (OSError, ValueError):
            continue
