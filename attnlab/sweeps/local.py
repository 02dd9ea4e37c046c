"""Launcher: `hydra/launcher=local`, a sweep on this machine: one process a job, one or several slots a GPU, a board of what runs.

    python -m attnlab.train -m seed=0,1,2,3 hydra/launcher=local hydra.launcher.jobs_per_device=2

A job's process sees only its own GPU and its share of the CPU; its output goes into outputs/.hydra/local/<run>.log. Ctrl-C (or SIGTERM)
stops the jobs so that they can go on later; however this process ends, none of its jobs outlives it.
"""

import contextlib
import dataclasses
import functools
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from attnlab.records.lookup import goes_on, record_of
from attnlab.sweeps import board
from attnlab.sweeps.commands import note_end, words_of
from attnlab.sweeps.devices import count_cpus, find_devices
from attnlab.sweeps.journal import DONE, FAILED, RESUMED, Job
from attnlab.sweeps.processes import PARENT
from attnlab.sweeps.warm import Warm, WarmProcess
from attnlab.terminal import as_ctrl_c

TRAIN = [sys.executable, "-m", "attnlab.train"]


@functools.cache
def register() -> None:
    """Make `hydra/launcher=local` known to Hydra. Sweeps build it: Hydra 1.3 itself builds no launcher outside hydra_plugins."""
    from hydra.core.config_store import ConfigStore

    node = {"_target_": "attnlab.sweeps.local.LocalLauncher", "devices": "auto", "jobs_per_device": 1, "patience": 60.0, "warm": True}
    ConfigStore.instance().store(group="hydra/launcher", name="local", node=node, provider="attnlab")


@dataclasses.dataclass
class Child:
    """A job's process."""

    job: Job
    slots: list[str]
    process: subprocess.Popen[bytes] | WarmProcess
    log: Path
    resumed: bool
    left: int

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)


class LocalLauncher:
    """One process a job on this machine; see the top of this file.

    devices: auto (those of CUDA_VISIBLE_DEVICES, else every GPU; where there is none, the CPU), cpu, or a list: [0, 2].
    jobs_per_device: how many jobs share a GPU, or the CPU. A job of trainer=ddp takes a slot on each of as many GPUs as it asks for.
    patience: seconds that a job has to stop after Ctrl-C.
    warm: where there is no GPU, jobs are forks of a process that has imported torch and the rest; false: each starts from nothing.
    """

    def __init__(
        self,
        *,
        devices: Literal["auto", "cpu"] | list[int] | list[str] | int = "auto",
        jobs_per_device: int = 1,
        patience: float = 60.0,
        warm: bool = True,
    ) -> None:
        if jobs_per_device < 1:
            raise ValueError(f"jobs_per_device must be at least 1, got {jobs_per_device}")
        names = {"auto": find_devices, "cpu": list}[devices]() if isinstance(devices, str) else devices
        self.devices = [str(name) for name in ([names] if isinstance(names, int) else names)]
        if negative := [name for name in self.devices if name.startswith("-")]:
            raise ValueError(f"devices must be numbers from 0 on, or names of GPUs, got {negative[0]}")
        self.jobs_per_device, self.patience = jobs_per_device, patience
        self.warm = warm
        self.jobs: dict[int, Job] = {}  # by number
        self.forking: dict[str, Warm] = {}  # by the threads of a job
        self.children: list[Child] = []

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.config, self.task = config, task_function

    def accept(self, jobs: Sequence[Job]) -> None:
        """The jobs of the next launch, composed and checked."""
        self.jobs = {job.number: job for job in jobs}

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[Any]:
        jobs = [self.jobs[initial_job_idx + index] for index in range(len(job_overrides))]
        self.waiting = deque((job, job.plan.full["retries"]) for job in jobs)
        self.free = (self.devices or ["cpu"]) * self.jobs_per_device
        self.cpus = max(1, count_cpus() // min(len(self.free), len(jobs)))
        self.board = board.Board(len(jobs))
        with self.board, as_ctrl_c():
            try:
                while self.waiting or self.children:
                    self.start_all()
                    time.sleep(0.1)
                    self.settle_all()
                    self.board.update(len(self.waiting))
            except KeyboardInterrupt:
                self.stop()
                raise
            finally:
                for child in self.children:
                    child.signal(signal.SIGKILL)
        return []

    def close(self) -> None:
        """After the last launch: a study has one for each of its batches."""
        for forking in self.forking.values():
            forking.close()
        self.forking.clear()

    def start_all(self) -> None:
        while self.waiting:
            job, left = self.waiting[0]
            slots = self.slots_for(job)
            if slots is None:
                return
            self.waiting.popleft()
            self.start(job, slots, left)

    def slots_for(self, job: Job) -> list[str] | None:
        """Free slots for a job: one, or one on each of as many GPUs as it trains on; None while there are too few."""
        wanted = min(processes_of(job), len(self.devices)) if self.devices else 1
        found = sorted(dict.fromkeys(self.free), key=lambda device: -self.free.count(device))[:wanted]  # the idlest first
        return found if len(found) == wanted else None

    def start(self, job: Job, slots: list[str], left: int) -> None:
        path = Path(str(self.config.hydra.sweep.dir)) / "local" / f"{job.plan.run_id}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        words = self.command(job)
        job.started = time.time()
        resumed = goes_on(job.plan)
        with open(path, "ab") as output:
            output.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} python {' '.join(words[1:])}\n".encode())
            output.flush()
            process = self.process(words, self.environment(job, slots), output.fileno())
        for slot in slots:
            self.free.remove(slot)
        child = Child(job, slots, process, path, resumed, left)
        self.children.append(child)
        self.board.started(job, slots if self.devices else [])

    def process(self, words: list[str], environment: dict[str, str], output: int) -> "subprocess.Popen[bytes] | WarmProcess":
        """A process of its own for a job: a fork of one that has its imports where that is safe, else from the start."""
        if self.warm and not self.devices and words[: len(TRAIN)] == TRAIN:
            threads = environment["OMP_NUM_THREADS"]
            if threads not in self.forking or not self.forking[threads].alive:  # libraries read it when they are imported
                self.forking[threads] = Warm(environment)
            if process := self.forking[threads].start(words[len(TRAIN) :], environment, output):
                return process
        return subprocess.Popen(words, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0)

    def command(self, job: Job) -> list[str]:
        return [sys.executable, *words_of(self.config, job)]

    def environment(self, job: Job, slots: list[str]) -> dict[str, str]:
        threads = max(1, self.cpus // processes_of(job))
        given = os.environ.get("OMP_NUM_THREADS", "")
        threads = min(threads, int(given)) if given.isdigit() and int(given) else threads
        visible = {"CUDA_VISIBLE_DEVICES": ",".join(slots)} if self.devices else {}
        return {**os.environ, PARENT: str(os.getpid()), "OMP_NUM_THREADS": str(threads), "PYTHONFAULTHANDLER": "1", **visible}

    def settle_all(self) -> None:
        for child in [child for child in self.children if child.process.poll() is not None]:
            if child in self.children:  # else stopped meanwhile
                self.children.remove(child)
                child.signal(signal.SIGKILL)  # what it may have left behind
                self.free += child.slots
                self.settle(child)

    def settle(self, child: Child, *, stopping: bool = False) -> None:
        """Write down how a job ended, or put it back into the queue."""
        job = child.job
        again = note_end(job, child.process.returncode, log=child.log, resumed=child.resumed, stopping=stopping)
        if again and child.left:
            self.board.say(f"{job.plan.run_id}: {job.error}; trying it again")
            self.waiting.appendleft((job, child.left - 1))
            self.board.ended(job, again=True)
            return
        self.task.journal.write(job, seconds=time.time() - job.started)
        path = record_of(job.plan).result_path
        self.board.ended(job, path if job.outcome in (DONE, RESUMED) and path.exists() else None)
        if job.outcome == FAILED and job.plan.full["fail_fast"] and not stopping:
            self.waiting.clear()
            self.stop()

    def stop(self) -> None:
        """End all jobs: first as Ctrl-C does, so that they note where they are; then with more force."""
        self.waiting.clear()
        if self.children:
            self.board.say(f"stopping {len(self.children)} runs; they can go on later (Ctrl-C again: do not wait for them)")
        for number, patience in ((signal.SIGINT, self.patience), (signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            with contextlib.suppress(KeyboardInterrupt):
                for child in self.children:
                    child.signal(number)
                end = time.monotonic() + patience
                while any(child.process.poll() is None for child in self.children) and time.monotonic() < end:
                    time.sleep(0.05)
        children, self.children = self.children, []
        for child in children:
            self.settle(child, stopping=True)


def processes_of(job: Job) -> int:
    trainer = job.plan.full["trainer"]
    return trainer.get("devices", 1) if trainer.get("strategy") == "ddp" else 1
