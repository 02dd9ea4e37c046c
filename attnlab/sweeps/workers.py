"""Launcher: `hydra/launcher=dask`, a sweep on the workers of a Dask cluster, for machines that share a disk and have no Slurm.

    dask scheduler                                                             # on one machine; says its address
    CUDA_VISIBLE_DEVICES=0 dask worker tcp://HOST:8786 --nthreads 1            # on each, one a GPU
    python -m attnlab.train -m seed=0,1,2,3 hydra/launcher=dask hydra.launcher.address=tcp://HOST:8786

A worker runs a job as a command of its own (`python -m attnlab.train ...`) that does not outlive it. If a worker dies, Dask gives its
job to another, up to three times, and the run goes on from its last checkpoint. What a job says goes into outputs/.hydra/dask/<run>.log.
Ctrl-C stops the jobs so that they can go on later; if this process is killed, those that run end by themselves and no other begins.

Whoever reaches the scheduler's port can run code on the workers: keep it inside a network that you trust, or use Dask's TLS.
"""

import contextlib
import dataclasses
import functools
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attnlab.records.lookup import goes_on, record_of
from attnlab.sweeps.board import Board
from attnlab.sweeps.commands import note_end, words_of
from attnlab.sweeps.journal import DONE, FAILED, INTERRUPTED, RESUMED, Job
from attnlab.sweeps.processes import PARENT

STOPPED = 130  # the code of a job that was told to stop


@functools.cache
def register() -> None:
    """Make `hydra/launcher=dask` known to Hydra."""
    from hydra.core.config_store import ConfigStore

    node = {"_target_": "attnlab.sweeps.workers.DaskLauncher", "address": None, "threads": None, "patience": 60.0}
    ConfigStore.instance().store(group="hydra/launcher", name="dask", node=node, provider="attnlab")


def run_command(words: list[str], *, folder: str, log: str, stop: str, threads: int | None, patience: float) -> int:
    """On a worker: run a job to its end and return its code. A file at `stop` ends it as Ctrl-C does."""
    limits = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # Dask sets them to 1
    environment = {key: value for key, value in os.environ.items() if key not in limits}
    environment |= {PARENT: str(os.getpid()), "PYTHONFAULTHANDLER": "1"} | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    if os.path.exists(stop):
        return STOPPED
    with open(log, "ab") as output:
        output.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} python {' '.join(words)}\n".encode())
        output.flush()
        process = subprocess.Popen(
            [sys.executable, *words], cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0
        )
        told: float | None = None
        while process.poll() is None:
            time.sleep(0.2)
            if told is None and os.path.exists(stop):
                told = time.monotonic()
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGINT)
            if told is not None and time.monotonic() - told > patience:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    return STOPPED if told is not None and process.returncode else process.returncode


class DaskLauncher:
    """One job at a time on each thread of the workers of a Dask cluster; see the top of this file.

    address: of the scheduler, such as tcp://host:8786.
    threads: CPU threads of a job, or null for PyTorch's choice (every CPU that the worker may use).
    patience: seconds that a job has to stop after Ctrl-C.
    """

    def __init__(self, *, address: str | None = None, threads: int | None = None, patience: float = 60.0) -> None:
        if not address:
            raise ValueError("hydra.launcher.address: name the scheduler of the Dask cluster, such as tcp://host:8786")
        if threads is not None and threads < 1:
            raise ValueError(f"hydra.launcher.threads must be at least 1 or null, got {threads}")
        self.address, self.threads, self.patience = address, threads, patience
        self.jobs: dict[int, Job] = {}  # by number

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.config, self.task = config, task_function

    def accept(self, jobs: Sequence[Job]) -> None:
        """The jobs of the next launch, composed and checked."""
        self.jobs = {job.number: job for job in jobs}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        jobs = [self.jobs[initial_job_idx + index] for index in range(len(job_overrides))]
        logs = (Path(str(self.config.hydra.sweep.dir)) / "dask").absolute()
        logs.mkdir(parents=True, exist_ok=True)
        self.stop = self.task.journal.folder / "stop"
        with self.connect() as self.client, Board(len(jobs)) as self.board:
            self.sent = [self.send(job, logs / f"{job.plan.run_id}.log", job.plan.full["retries"]) for job in jobs]
            try:
                while self.sent:
                    self.look()
            except KeyboardInterrupt:
                self.board.say("stopping the runs; they can go on later (Ctrl-C again: do not wait for them)")
                self.stop.touch()
                end = time.monotonic() + self.patience + 10
                with contextlib.suppress(KeyboardInterrupt):
                    while self.sent and time.monotonic() < end:
                        self.look(stopping=True)
                raise
        return []

    def connect(self) -> Any:
        try:
            from distributed import Client
        except ImportError:
            raise ValueError("hydra/launcher=dask needs the package distributed: pip install distributed") from None
        try:
            return Client(self.address, set_as_default=False, timeout=20)
        except (OSError, ValueError) as error:
            raise ValueError(f"hydra.launcher.address={self.address}: no Dask scheduler answers there") from error

    def send(self, job: Job, log: Path, left: int) -> "Sent":
        limits = {"log": str(log), "stop": str(self.stop), "threads": self.threads, "patience": self.patience}
        key = f"{job.plan.run_id}-{uuid.uuid4().hex[:8]}"
        resumed = goes_on(job.plan)
        size = log.stat().st_size if log.exists() else 0
        job.started = time.time()
        future = self.client.submit(run_command, words_of(self.config, job), folder=os.getcwd(), **limits, key=key, pure=False)
        return Sent(job, future, log, size, resumed, left)

    def look(self, *, stopping: bool = False) -> None:
        """Write down what has ended, show what runs, and wait a moment."""
        for sent in list(self.sent):
            if not sent.shown and (sent.future.done() or sent.began):
                sent.shown = True
                self.board.started(sent.job, [])
            if sent.future.done():
                self.sent.remove(sent)
                self.settle(sent, stopping=stopping)
        self.board.update(sum(not sent.shown for sent in self.sent))
        time.sleep(0.2)

    def settle(self, sent: "Sent", *, stopping: bool) -> None:
        """Write down how a job ended, or send it again."""
        job = sent.job
        if sent.future.status == "finished":
            again = note_end(job, sent.future.result(), log=sent.log, resumed=sent.resumed, stopping=stopping)
            if again and sent.left and not stopping:
                self.board.say(f"{job.plan.run_id}: {job.error}; trying it again")
                self.board.ended(job, again=True)
                self.sent.append(self.send(job, sent.log, sent.left - 1))
                return
        elif stopping:
            job.outcome = INTERRUPTED
        else:  # its workers died, one after the other, or the scheduler did
            error = sent.future.exception() if sent.future.status == "error" else "the scheduler lost it"
            job.outcome, job.error, job.log = FAILED, f"DaskLauncher lost it: {' '.join(str(error).split())}", ""
        self.task.journal.write(job, seconds=time.time() - job.started)
        path = record_of(job.plan).result_path
        self.board.ended(job, path if job.outcome in (DONE, RESUMED) and path.exists() else None)
        if job.outcome == FAILED and job.plan.full["fail_fast"] and not stopping:
            self.stop.touch()


@dataclasses.dataclass
class Sent:
    """A job on its way through the cluster."""

    job: Job
    future: Any
    log: Path
    size: int  # of its log when it was sent
    resumed: bool
    left: int
    shown: bool = False

    @property
    def began(self) -> bool:
        """Whether a worker has begun it: its log grows."""
        return self.log.exists() and self.log.stat().st_size > self.size
