"""Sweep: many jobs through any Hydra launcher. Repeating a sweep's command does what is missing, and nothing else.

`Guard` stands between Hydra's sweeper and its launcher (guard.py); `Task` is what a launcher calls, in whatever process (task.py);
`Journal` is where they write down how each job ended (journal.py).
"""

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from attnlab.config.build import build
from attnlab.config.compose import hydra_version, loosen, typed
from attnlab.config.plan import Plan
from attnlab.config.signatures import complete
from attnlab.config.targets import config_dir, locate
from attnlab.records.grouping import HEADS, rows_of
from attnlab.records.lookup import record_of
from attnlab.sweeps import local, search, submitted, workers
from attnlab.sweeps.guard import Guard
from attnlab.sweeps.journal import DONE, FAILED, HALTED, INTERRUPTED, RESUMED, SKIPPED, Job
from attnlab.sweeps.task import Task
from attnlab.terminal import aligned, console

log = logging.getLogger("attnlab")

MOST_ROWS = 20  # of the table at the end


class Sweep:
    """`Sweep(job).run(start)`: while `start` runs, every launcher that Hydra makes is guarded. Ends in a summary."""

    def __init__(self, job: Callable[[Plan], Any]) -> None:
        self.job = job
        self.guards: list[Guard] = []
        self.sweeper: Any = None
        self.start = time.monotonic()

    def run(self, start: Callable[[], Any]) -> int:
        """The number of jobs that failed."""
        from hydra.core.plugins import Plugins

        plugins = Plugins.instance()
        # functions: Hydra copies its singletons
        plugins.instantiate_launcher = lambda *given, **named: self.guarded(*given, **named)
        plugins.instantiate_sweeper = lambda *given, **named: self.sweeper_of(*given, **named)
        try:
            start()
        finally:
            del plugins.instantiate_launcher, plugins.instantiate_sweeper
            for guard in self.guards:
                guard.close()
            self.summarize()
        return sum(job.outcome == FAILED for job in self.jobs)

    def sweeper_of(self, **given: Any) -> Any:
        """The sweeper that is chosen, Hydra's or ours."""
        from hydra.core.plugins import Plugins
        from omegaconf import OmegaConf

        node = OmegaConf.to_container(given["config"].hydra.sweeper, resolve=True)
        if not node["_target_"].startswith("attnlab."):
            plugins = Plugins.instance()
            return type(plugins).instantiate_sweeper(plugins, **given)
        node.pop("params")  # Hydra's own name for words of the command line, parsed as these are
        self.sweeper = build(complete(node, where="hydra.sweeper")[0], where="hydra.sweeper")
        self.sweeper.setup(**given)
        return self.sweeper

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
            if node["_target_"].startswith(submitted.PLUGIN):
                inner = submitted.SubmittedJobs(inner, task=task)
        self.guards.append(Guard(inner, context=hydra_context, config=config, task=task))
        return self.guards[-1]

    @property
    def jobs(self) -> list[Job]:
        return [job for guard in self.guards for job in guard.jobs]

    def summarize(self) -> None:
        """The summary, on stderr."""
        told = list(self.sweeper.summary()) if self.sweeper else self.by_what_was_swept()
        if not self.jobs:
            for line in told:
                log.info("%s", line)
            return
        seconds = round(time.monotonic() - self.start)
        counts = {kind: sum(job.outcome == kind for job in self.jobs) for kind in (DONE, RESUMED, SKIPPED, HALTED, FAILED, INTERRUPTED, "")}
        shown = [f"{count} {kind or 'not started'}" for kind, count in counts.items() if count or kind in (DONE, SKIPPED, FAILED)]
        log.info("sweep of %d jobs, %d:%02d: %s", len(self.jobs), seconds // 60, seconds % 60, ", ".join(shown))
        for line in told:
            log.info("  %s", line)
        for line in self.hints():
            log.info("%s", line)
        common = set.intersection(*(set(job.overrides) for job in self.jobs)) if len(self.jobs) > 1 else set()
        groups: dict[tuple[str, str], list[Job]] = {}
        for job in self.jobs:
            if job.outcome == FAILED:
                groups.setdefault((job.error, job.log), []).append(job)
        for (error, path), jobs in groups.items():
            own = dataclasses.replace(jobs[0], overrides=tuple(text for text in jobs[0].overrides if text not in common))
            more = f" and {len(jobs) - 1} more" if len(jobs) > 1 else ""
            log.info("  failed  %s%s\n          %s%s", own.words, more, error, f"\n          log: {shorten(path)}" if path else "")

    def by_what_was_swept(self) -> list[str]:
        """A table of the objective: mean and sd over seeds and whatever else, a row for what the jobs differ in, the best first."""
        done = [job for job in self.jobs if job.plan and isinstance(job.value, int | float)]
        words = [dict(typed(text).partition("=")[::2] for text in job.overrides) for job in done]
        swept = [key for key in dict.fromkeys(key for one in words for key in one) if len({one.get(key) for one in words}) > 1]
        rows_by = [key for key in swept if key != "seed"]
        objectives = {job.plan.full["objective"] for job in done}
        if not swept or len(objectives) != 1:
            return []
        (metric,) = objectives
        runs = {job.plan.address: ([one.get(key, "-") for key in rows_by], job.value) for job, one in zip(done, words)}  # a run counts once
        rows = rows_of(runs.values(), metric=metric)
        shown = aligned([*rows_by, metric, *HEADS[1:]], [row.cells for row in rows[:MOST_ROWS]], right=(metric, *HEADS[1:]))
        hidden = len(rows) - MOST_ROWS
        return [*shown, *([f"and {hidden} more: python -m attnlab.runs by={','.join(rows_by)}"] if hidden > 0 else [])]

    def hints(self) -> list[str]:
        """What the jobs' loggers say is to be done now: a line a kind of logger."""
        folders: dict[Any, list[Path]] = {}
        for job in self.jobs:
            target = (job.plan.full.get("logger") or {}).get("_target_") if job.plan else None
            if target:
                kind = locate(target, allow=job.plan.allow, where="logger")
                folders.setdefault(kind, []).append(Path(shorten(record_of(job.plan).folder)))
        told = [kind.sweep_hint(found) for kind, found in folders.items() if hasattr(kind, "sweep_hint")]
        return [line for line in told if line]


def shorten(path: str | Path) -> str:
    """A path as seen from here, where it lies below."""
    with contextlib.suppress(ValueError):
        return str(Path(path).absolute().relative_to(Path.cwd()))
    return str(path)


def launch(jobs: Sequence[Sequence[str]], *, job: Callable[[Plan], Any], options: Sequence[str] = ()) -> list[Job]:
    """Run a list of jobs, each its own overrides, as one sweep; every Job states how it ended.

    `options` choose launcher and folder: ["hydra/launcher=local", "hydra.launcher.jobs_per_device=2", "paths.outputs=DIR"]; they are not
    handed to the jobs. Prints the summary. KeyboardInterrupt passes through.
    """
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.types import HydraContext, RunMode

    from attnlab.config.sources import checked_sources

    console()
    local.register()
    workers.register()
    search.register()
    GlobalHydra.instance().clear()
    sweep = Sweep(job)

    def start() -> None:
        from hydra._internal.callbacks import Callbacks
        from hydra.core.plugins import Plugins

        with checked_sources(), hydra.initialize_config_dir(str(config_dir().resolve()), **hydra_version()):
            loader = GlobalHydra.instance().config_loader()
            config = loader.load_configuration("train", loosen(options), run_mode=RunMode.MULTIRUN)
            context = HydraContext(config_loader=loader, callbacks=Callbacks())
            guard = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=sweep.job, config=config)
            guard.launch([loosen(overrides) for overrides in jobs], initial_job_idx=0)

    sweep.run(start)
    return sweep.jobs
