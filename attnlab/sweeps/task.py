"""Task: what a launcher calls for a job of a sweep, in whatever process; it tries a job `retries` times more and writes to the journal."""

import gc
import logging
import time
from collections.abc import Callable
from typing import Any

from attnlab.config.checks import check
from attnlab.config.compose import typed, unresolved
from attnlab.config.plan import Plan
from attnlab.config.targets import ConfigError
from attnlab.records.lookup import finished, goes_on, is_halted
from attnlab.sweeps.journal import DONE, HALTED, INTERRUPTED, RESUMED, SKIPPED, Job, Journal, first_line
from attnlab.terminal import console

log = logging.getLogger("attnlab")


class Task:
    """What a launcher calls for one job, here or in another process: runs it, writes to the journal, raises only KeyboardInterrupt."""

    def __init__(self, job: Callable[[Plan], Any], journal: Journal | None = None) -> None:
        self.job, self.journal = job, journal
        self.queued_again = False  # a cluster takes this process away, and starts the job anew later

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "queued_again": False}

    def __call__(self, cfg: Any) -> float | None:
        from hydra.core.hydra_config import HydraConfig

        assert self.journal is not None
        console()
        context = HydraConfig.get()
        job = Job(tuple(unresolved(context.overrides.task)), number=context.job.num, started=time.time())
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
            if self.queued_again and isinstance(error, SystemExit):
                job.outcome = INTERRUPTED
                raise
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
                resumed = resumed or goes_on(plan)
                job.value = self.job(plan)
                job.outcome = SKIPPED if skipped else HALTED if is_halted(plan) else RESUMED if resumed else DONE
                return
            except Exception as error:
                if isinstance(error, ConfigError) or self.queued_again or not left:
                    raise
                log.error("%s: %s; trying it again", plan.run_id, first_line(error))
            gc.collect()
