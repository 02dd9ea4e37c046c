"""Jobs that submitit queues: `hydra/launcher=submitit_slurm` and `submitit_local`, each waited for by itself.

The plugin's own launcher ends with the first job that has no result, while the others run on, and asks `sacct` for states, which
clusters without accounting do not have: a job that was cancelled there is waited for without end. Here a job that is lost is one job
lost, states come from `squeue`, and Ctrl-C cancels what is queued. If this process is killed or its connection lost, the jobs stay in
the queue.
"""

import contextlib
import dataclasses
import os
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attnlab.records.lookup import record_of
from attnlab.sweeps.board import Board
from attnlab.sweeps.journal import DONE, FAILED, INTERRUPTED, RESUMED, Job
from attnlab.sweeps.task import Task

PLUGIN = "hydra_plugins.hydra_submitit_launcher."
LOOK_SECONDS = 10.0  # between two questions to squeue
GRACE_SECONDS = 20.0  # that the result of a job may need to be seen here once the job has ended
RUNS = "RUNNING"
ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT")
GONE = "no longer known to Slurm"


class Call:
    """What submitit pickles, and calls in the job's process."""

    def __init__(self, launcher: Any) -> None:
        self.launcher = launcher

    def __call__(self, overrides: list[str], number: int, state: Mapping[type, Any]) -> None:
        self.launcher(overrides, "hydra.sweep.dir", number, str(number), state)

    def checkpoint(self, *given: Any) -> Any:
        """submitit's signal handler calls this before it queues the job again and exits: the run goes on from its own checkpoint."""
        from submitit.helpers import DelayedSubmission

        self.launcher.task_function.queued_again = True
        return DelayedSubmission(self, *given)


class SubmittedJobs:
    """A launcher of the submitit plugin, whose parameters it takes; see the top of this file."""

    def __init__(self, launcher: Any, *, task: Task) -> None:
        self.launcher, self.task = launcher, task
        self.kind: str = launcher._EXECUTOR
        self.jobs: dict[int, Job] = {}  # by number

    def accept(self, jobs: Sequence[Job]) -> None:
        """The jobs of the next launch, composed and checked."""
        self.jobs = {job.number: job for job in jobs}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        jobs = [self.jobs[initial_job_idx + index] for index in range(len(job_overrides))]
        with Board(len(jobs)) as board:
            queue = Queue(self.kind, self.submit(jobs))
            board.say(f"{len(jobs)} jobs are queued as {', '.join(queue.arrays)}; Ctrl-C cancels them")
            try:
                self.wait(jobs, queue, board)
            except KeyboardInterrupt:
                queue.cancel(job.number for job in jobs if not job.outcome)
                raise
        return []

    def submit(self, jobs: Sequence[Job]) -> dict[int, Any]:
        """submitit's jobs by number, as one array."""
        import submitit
        from hydra.core.singleton import Singleton
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

        common = {field.name for field in dataclasses.fields(BaseQueueConf)}
        given = dict(self.launcher.params)
        folder, retries = given.pop("submitit_folder"), given.pop("max_num_timeout", None)
        if self.kind == "slurm" and given.get("cpus_per_task"):
            # from Slurm 22.05 on srun does not take this from sbatch, and where steps are bound to CPUs it has to be told
            given["setup"] = ["export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK", *(given.get("setup") or [])]
        times = {} if retries is None else {f"{self.kind}_max_num_timeout": retries}
        executor = submitit.AutoExecutor(folder=folder, cluster=self.kind, **times)
        executor.update_parameters(**{name if name in common else f"{self.kind}_{name}": value for name, value in given.items()})
        state = Singleton.get_state()
        queued = executor.map_array(
            Call(self.launcher), [list(job.overrides) for job in jobs], [job.number for job in jobs], [state] * len(jobs)
        )
        return {job.number: one for job, one in zip(jobs, queued, strict=True)}

    def wait(self, jobs: Sequence[Job], queue: "Queue", board: Board) -> None:
        """Until every job has a result or has ended without one."""
        waiting, running = {job.number: job for job in jobs}, set()
        while waiting:
            time.sleep(0.5)
            queue.look()
            for number, job in list(waiting.items()):
                wrong = "" if (has_result := queue.has_result(number)) else queue.lost(number)
                if number not in running and (has_result or wrong or queue.state(number) == RUNS):
                    running.add(number)
                    job.started = time.time()
                    board.started(job, [])
                if has_result or wrong:
                    del waiting[number]
                    self.settle(job, queue, wrong)
                    path = record_of(job.plan).result_path
                    board.ended(job, path if job.outcome in (DONE, RESUMED) and path.exists() else None)
            board.update(len(waiting.keys() - running))

    def settle(self, job: Job, queue: "Queue", wrong: str) -> None:
        """How a job ended: by its own entry in the journal, unless it never came to write one, or was ended from outside."""
        entry = self.task.journal.read(job.number)
        for key, value in entry.items():
            setattr(job, key, value)
        if job.outcome in ("", INTERRUPTED):
            job.outcome = FAILED
            job.error = f"{queue.name(job.number)} {wrong or 'failed before it began'}; what it said is in {queue.folder(job.number)}"
            self.task.journal.write(job, seconds=time.time() - job.started)


class Queue:
    """The queued jobs by number: whether they have a result, and what their cluster says of them."""

    def __init__(self, kind: str, jobs: Mapping[int, Any]) -> None:
        self.kind, self.jobs = kind, jobs
        self.states: dict[str, str] = {}  # by the id of the cluster
        self.ended: dict[int, float] = {}  # when a job was first seen to have ended
        self.looked = 0.0

    @property
    def arrays(self) -> list[str]:
        return list(dict.fromkeys(str(job.job_id).partition("_")[0] for job in self.jobs.values()))

    def name(self, number: int) -> str:
        return f"{self.kind} job {self.jobs[number].job_id}"

    def folder(self, number: int) -> str:
        return str(self.jobs[number].paths.folder)

    def has_result(self, number: int) -> bool:
        paths = self.jobs[number].paths
        with contextlib.suppress(OSError):  # a network disk shows a new file only after its folder was looked at
            os.listdir(paths.folder)
        return paths.result_pickle.exists()

    def state(self, number: int) -> str:
        return self.states.get(str(self.jobs[number].job_id), "")

    def lost(self, number: int) -> str:
        """Why there will be no result: how the job ended; empty while it may still come."""
        state = self.state(number)
        if not state.startswith(ENDED) and state != GONE:
            self.ended.pop(number, None)
            return ""
        since = self.ended.setdefault(number, time.monotonic())
        return f"ended without a result ({state})" if time.monotonic() - since > GRACE_SECONDS else ""

    def look(self) -> None:
        """Ask for the states, now and then."""
        if time.monotonic() - self.looked < LOOK_SECONDS:
            return
        self.looked = time.monotonic()
        if self.kind == "slurm":
            self.states = {**self.states, **squeue(self.arrays, [str(job.job_id) for job in self.jobs.values()])}
        else:
            self.states = {str(job.job_id): "COMPLETED" if job.done() else RUNS for job in self.jobs.values()}

    def cancel(self, numbers: Iterable[int]) -> None:
        names = [str(self.jobs[number].job_id) for number in numbers]
        if self.kind == "slurm":
            subprocess.run(["scancel", *names], capture_output=True)
        else:
            for job in self.jobs.values():
                job.cancel(check=False)


def squeue(arrays: Sequence[str], names: Sequence[str]) -> dict[str, str]:
    """What Slurm says of jobs; nothing where it does not answer. Slurm forgets an ended job after some minutes (MinJobAge)."""
    found: dict[str, str] = {}
    for array in arrays:
        words = ["squeue", "--noheader", "--array", "--states=all", "--format=%i|%T", f"--jobs={array}"]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired):
            return {}
        if done.returncode and "Invalid job id" not in done.stderr:
            return {}
        found |= dict(line.split("|", 1) for line in done.stdout.splitlines() if "|" in line)
    return {name: found.get(name, GONE) for name in names}
