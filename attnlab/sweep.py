"""Sweep: many jobs through any Hydra launcher. Repeating a sweep's command does what is missing, and nothing else.

`Guard` stands between Hydra's sweeper and its launcher: jobs that are finished or cannot be meant never reach the launcher. `Task` is what
a launcher calls, in whatever process: it tries a job `retries` times more, and what became of it goes into the journal, a folder beside the
sweep's other files that all its processes reach and that is gone when the sweep is over.
"""

import contextlib
import copy
import dataclasses
import gc
import hashlib
import json
import logging
import os
import shutil
import socket
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attnlab.build import ConfigError, build, complete
from attnlab.config import Plan, _job, check, config_dir, hydra_version, loosen, typed
from attnlab.finished import finished, record_of
from attnlab.record import write_atomic
from attnlab.terminal import console, message

log = logging.getLogger("attnlab")

DONE, RESUMED, SKIPPED, FAILED, INTERRUPTED = "done", "resumed", "skipped", "failed", "interrupted"


@dataclasses.dataclass
class Job:
    """One job of a sweep and what became of it; `outcome` is empty while it has not been started."""

    overrides: tuple[str, ...]
    config: Any = None
    plan: Plan | None = None
    number: int = -1
    started: float = 0.0
    outcome: str = ""
    value: float | None = None
    error: str = ""
    log: str = ""
    seconds: float = 0.0

    @property
    def words(self) -> str:
        return " ".join(typed(text) for text in self.overrides)


class Journal:
    """What became of each job, a file a job: written whole from any process on any host, with no need of locks that network disks lack."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()

    def write(self, job: Job, *, seconds: float) -> None:
        entry = {"outcome": job.outcome, "value": job.value, "error": job.error, "log": job.log, "seconds": seconds}
        write_atomic(self.folder / f"{job.number}.json", json.dumps(entry))
        if job.outcome == FAILED:
            (self.folder / "failed").touch()

    def read(self, number: int) -> dict[str, Any]:
        try:
            return json.loads((self.folder / f"{number}.json").read_text())
        except FileNotFoundError:
            return {}

    @property
    def failed(self) -> bool:
        return (self.folder / "failed").exists()

    def failure_log(self, overrides: Sequence[str]) -> Path:
        """Where the traceback of a job goes that failed before it had a record with a train.log."""
        digest = hashlib.sha256(" ".join(overrides).encode()).hexdigest()[:8]
        return self.folder.parent / "failed" / f"{digest}.log"

    def failure(self, job: Job, error: BaseException) -> None:
        """A job failed: what a person has to know, and where the traceback is."""
        job.outcome, job.error = FAILED, first_line(error)
        log.error("failed: %s: %s", job.plan.run_id if job.plan else job.words, job.error)
        if job.plan and (path := record_of(job.plan).folder / "train.log").exists() and path.stat().st_mtime >= job.started:
            job.log = str(path)
            return
        path = self.failure_log(job.overrides)
        job.log = str(path)
        text = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {job.words}\n{''.join(traceback.format_exception(error))}"
        with contextlib.suppress(OSError):  # the disk may be what failed
            write_atomic(path, text)

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


class Task:
    """What a launcher calls for one job, here or in another process: runs it, tells the journal, raises nothing but KeyboardInterrupt."""

    def __init__(self, job: Callable[[Plan], Any], journal: Journal | None = None) -> None:
        self.job, self.journal = job, journal

    def __call__(self, cfg: Any) -> float | None:
        from hydra.core.hydra_config import HydraConfig

        assert self.journal is not None
        console()
        context = HydraConfig.get()
        job = Job(tuple(context.overrides.task), number=context.job.num, started=time.time())
        start = job.started
        try:
            if not (cfg.get("fail_fast") is True and self.journal.failed):
                words = [typed(text) for text in job.overrides]
                job.plan = check(cfg, choices=context.runtime.choices, overrides=words)
                self.attempt(job, job.plan)
        except KeyboardInterrupt:
            job.outcome = INTERRUPTED
            raise
        except (Exception, SystemExit) as error:
            self.journal.failure(job, error)
        finally:
            self.journal.write(job, seconds=time.time() - start)
        return job.value

    def attempt(self, job: Job, plan: Plan) -> None:
        """Run until it succeeds or the tries are used up; a mistake in the configuration is not tried twice."""
        resumed = False
        for left in reversed(range(1 + plan.full["retries"])):
            job.started = time.time()
            try:
                skipped = finished(plan)
                resumed = resumed or (not plan.full["force"] and record_of(plan).checkpoint_path.exists())
                job.value = self.job(plan)
                job.outcome = SKIPPED if skipped else RESUMED if resumed else DONE
                return
            except Exception as error:
                if isinstance(error, ConfigError) or not left:
                    raise
                log.error("%s: %s; trying it again", plan.run_id, first_line(error))
            gc.collect()


def first_line(error: BaseException) -> str:
    text = message(error)
    if text is None:
        text = f"{type(error).__name__}: {error}"
    lines = text.strip().splitlines()
    return lines[0] if lines else type(error).__name__


class Guard:
    """A launcher around a launcher: looks at every job first, lets through what has to run, and knows afterwards what became of it."""

    def __init__(self, inner: Any, *, context: Any, config: Any, task: Task) -> None:
        self.inner, self.context, self.config, self.task = inner, context, config, task
        self.jobs: list[Job] = []
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
            for job in jobs:
                self.look(job)
            todo = [job for job in jobs if not job.outcome]
            tries = 1 + max((job.plan.full["retries"] for job in todo), default=0)
            while todo and tries and not self.stops(jobs):
                self.run(todo)
                tries -= 1
                todo = [job for job in todo if job.outcome == FAILED and not job.log and job.plan.full["retries"]]  # lost by the launcher
        finally:
            self.loader.load_sweep_config = self._compose
        return [self._returned(job) for job in jobs]

    def stops(self, jobs: Sequence[Job]) -> bool:
        return any(job.outcome == FAILED for job in jobs) and any(job.plan and job.plan.full["fail_fast"] for job in jobs)

    def look(self, job: Job) -> None:
        """The plan of a job; its outcome, where that is known without running it."""
        from hydra.core.hydra_config import HydraConfig
        from omegaconf import open_dict

        config = self.composed.pop(job.overrides, None) or self.loader.load_sweep_config(self.config, list(job.overrides))
        self.count += 1
        job.config, job.number = config, self.count
        with open_dict(config):
            config.hydra.job.num, config.hydra.job.id = job.number, str(job.number)
        instance = HydraConfig.instance()
        before = instance.cfg
        instance.set_config(config)
        job.started = time.time()
        try:
            words = [typed(text) for text in config.hydra.overrides.task]
            job.plan = check(_job(config), choices=config.hydra.runtime.choices, overrides=words)
            if job.plan.full["retries"] < 0:
                raise ConfigError(f"retries={job.plan.full['retries']}: must be 0 or more")
            found = finished(job.plan)
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
        """Hand jobs to the launcher and read what became of them, however the launcher ends."""
        from attnlab.launcher import LocalLauncher

        first = self.count + 1
        for job in jobs:
            self.count += 1
            job.number, job.outcome, job.error = self.count, "", ""
        self.journal.folder.mkdir(parents=True, exist_ok=True)
        if isinstance(self.inner, LocalLauncher):  # ours, which composes nothing again
            self.inner.jobs = {job.number: job for job in jobs}
        returns: Sequence[Any] = ()
        lost: Exception | None = None
        try:
            returns = self.inner.launch([list(job.overrides) for job in jobs], initial_job_idx=first)
        except Exception as error:  # a worker was killed, or the cluster refused the job
            lost = error
        finally:
            unheard = [job for job in jobs if not self._read(job)]
        values = {job.number: told._return_value for job, told in zip(jobs, returns)}
        for job in unheard:
            if lost:
                job.outcome, job.error = FAILED, f"{type(self.inner).__name__} lost it: {first_line(lost)}"
            elif isinstance(values.get(job.number), BaseException):
                job.outcome, job.error = FAILED, first_line(values[job.number])
            elif job.number in values:  # a host that does not see our disk
                job.outcome, job.value = DONE, values[job.number]
        for job in jobs:
            if job.outcome in (DONE, RESUMED):
                self.journal.failure_log(job.overrides).unlink(missing_ok=True)

    def _read(self, job: Job) -> bool:
        entry = self.journal.read(job.number)
        for key, value in entry.items():
            setattr(job, key, value)
        return bool(entry)

    def _returned(self, job: Job) -> Any:
        """What the sweeper is told; a job that failed has no value, and stops nobody."""
        from hydra.core.utils import JobReturn, JobRuntime, JobStatus

        return JobReturn(
            overrides=list(job.overrides),
            cfg=_job(job.config),
            hydra_cfg=job.config,
            working_dir=os.getcwd(),
            task_name=JobRuntime.instance().get("name"),
            status=JobStatus.COMPLETED,
            _return_value=copy.copy(job.value),
        )

    def close(self) -> None:
        """Leave no file of our own behind but logs of failures."""
        self.loader.__dict__.pop("load_sweep_config", None)
        self.journal.clear()
        folder = self.journal.folder.parent
        if folder.name == ".hydra":  # ours, and in every record is more than Hydra's copy of the command says
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


class Sweep:
    """`Sweep(job).run(start)`: while `start` runs, every launcher that Hydra makes is guarded. Ends in a summary."""

    def __init__(self, job: Callable[[Plan], Any]) -> None:
        self.job = job
        self.guards: list[Guard] = []
        self.start = time.monotonic()

    def run(self, start: Callable[[], Any]) -> int:
        """The number of jobs that failed."""
        from hydra.core.plugins import Plugins

        plugins = Plugins.instance()
        plugins.instantiate_launcher = lambda *given, **named: self.guarded(*given, **named)  # a function: Hydra copies its singletons
        try:
            start()
        finally:
            del plugins.instantiate_launcher
            for guard in self.guards:
                guard.close()
            self.tell()
        return sum(job.outcome == FAILED for job in self.jobs)

    def guarded(self, hydra_context: Any, task_function: Any, config: Any) -> Guard:
        from hydra.core.plugins import Plugins
        from omegaconf import OmegaConf

        task = Task(self.job)
        given = {"hydra_context": hydra_context, "task_function": task, "config": config}
        node = OmegaConf.to_container(config.hydra.launcher, resolve=True)
        if node["_target_"].startswith("attnlab."):
            inner = build(complete(node, where="hydra.launcher")[0], where="hydra.launcher")
            inner.setup(**given)
        else:
            plugins = Plugins.instance()
            inner = type(plugins).instantiate_launcher(plugins, **given)
        self.guards.append(Guard(inner, context=hydra_context, config=config, task=task))
        return self.guards[-1]

    @property
    def jobs(self) -> list[Job]:
        return [job for guard in self.guards for job in guard.jobs]

    def tell(self) -> None:
        """The summary, on stderr."""
        if not self.jobs:
            return
        seconds = round(time.monotonic() - self.start)
        counts = {kind: sum(job.outcome == kind for job in self.jobs) for kind in (DONE, RESUMED, SKIPPED, FAILED, INTERRUPTED, "")}
        shown = [f"{count} {kind or 'not started'}" for kind, count in counts.items() if count or kind in (DONE, SKIPPED, FAILED)]
        log.info("sweep of %d jobs, %d:%02d: %s", len(self.jobs), seconds // 60, seconds % 60, ", ".join(shown))
        common = set.intersection(*(set(job.overrides) for job in self.jobs)) if len(self.jobs) > 1 else set()
        groups: dict[tuple[str, str], list[Job]] = {}
        for job in self.jobs:
            if job.outcome == FAILED:
                groups.setdefault((job.error, job.log), []).append(job)
        for (error, path), jobs in groups.items():
            own = dataclasses.replace(jobs[0], overrides=tuple(text for text in jobs[0].overrides if text not in common))
            more = f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""
            log.info("  failed  %s%s\n          %s%s", own.words, more, error, f"\n          log: {shorten(path)}" if path else "")


def shorten(path: str | Path) -> str:
    """A path as seen from here, where it lies below."""
    with contextlib.suppress(ValueError):
        return str(Path(path).absolute().relative_to(Path.cwd()))
    return str(path)


def launch(jobs: Sequence[Sequence[str]], *, options: Sequence[str] = (), job: Callable[[Plan], Any] | None = None) -> list[Job]:
    """Run a list of jobs, each its own overrides, as one sweep; every Job says what became of it.

    `options` choose launcher and folder: ["hydra/launcher=local", "hydra.launcher.jobs_per_device=2", "paths.outputs=DIR"]; they are not
    handed to the jobs. Prints the summary. KeyboardInterrupt passes through.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import HydraContext, RunMode

    from attnlab import launcher, train

    console()
    launcher.register()
    GlobalHydra.instance().clear()
    sweep = Sweep(job or train.job)

    def start() -> None:
        from hydra._internal.callbacks import Callbacks
        from hydra.core.plugins import Plugins

        with hydra.initialize_config_dir(str(config_dir().resolve()), **hydra_version()):
            loader = GlobalHydra.instance().config_loader()
            config = loader.load_configuration("train", loosen(options), run_mode=RunMode.MULTIRUN)
            context = HydraContext(config_loader=loader, callbacks=Callbacks())
            guard = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=sweep.job, config=config)
            guard.launch([loosen(overrides) for overrides in jobs], initial_job_idx=0)

    sweep.run(start)
    return sweep.jobs
