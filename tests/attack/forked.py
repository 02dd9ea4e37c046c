"""Forked: a function in a process of its own, forked from a warm parent, so that a command answers without importing torch anew.

The parent has one thread and never trains, so a fork is safe; nothing that the child does reaches the parent or the next child.
"""

import contextlib
import dataclasses
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEMORY = 12 * 2**30  # bytes of address space that a child may have


@dataclasses.dataclass(frozen=True)
class Ended:
    """How a child ended. code: its exit status, negative for a signal. hung: it was killed because its time was up."""

    code: int
    out: str
    err: str
    seconds: float
    hung: bool = False

    @property
    def traceback(self) -> bool:
        return "Traceback (most recent call last)" in self.err

    @property
    def last_line(self) -> str:
        lines = [line for line in self.err.splitlines() if line.strip()]
        return lines[-1] if lines else ""


def warm() -> None:
    """Import what a run needs, and let Hydra find its plugins."""
    import sklearn.datasets
    import torch

    torch.set_num_threads(1)
    import pytorch_lightning  # noqa: F401
    import torchvision  # noqa: F401

    import attnlab.evaluate
    import attnlab.pipeline.dry_run
    import attnlab.pipeline.reevaluate
    import attnlab.pipeline.train
    import attnlab.runs
    import attnlab.sweeps.sweep
    import attnlab.table
    import attnlab.tables.fill
    import attnlab.tables.todo  # noqa: F401
    from attnlab.config.compose import compose

    sklearn.datasets.load_digits()
    compose()


def start(function: Callable[[], Any], folder: Path) -> int:
    """The process id of a child that runs `function`; its stdout and stderr go to `folder`/out and `folder`/err."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        return pid
    code = 1
    try:
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        for number, name in ((1, "out"), (2, "err")):
            file = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, number)
            os.close(file)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
        os.environ["HYDRA_FULL_ERROR"] = "1"
        function()
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0 if left.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def wait(pid: int, folder: Path, began: float, *, timeout: float) -> Ended:
    """How the child ended; it is killed after `timeout` seconds, and so is whatever it has left behind."""
    end, hung = time.monotonic() + timeout, False
    pause = 0.002
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            break
        if time.monotonic() > end:
            hung = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            break
        time.sleep(pause)
        pause = min(0.02, pause * 1.5)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    texts = [(folder / name).read_text(errors="replace") if (folder / name).exists() else "" for name in ("out", "err")]
    return Ended(os.waitstatus_to_exitcode(status), *texts, time.monotonic() - began, hung)


def forked(function: Callable[[], Any], *, timeout: float = 120.0) -> Ended:
    """Run `function` in a child and tell how it ended."""
    with tempfile.TemporaryDirectory() as name:
        began = time.monotonic()
        return wait(start(function, Path(name)), Path(name), began, timeout=timeout)


def command(module: str, words: list[str]) -> Callable[[], None]:
    """`python -m attnlab.MODULE WORDS`, from where the interpreter has started on."""

    def run() -> None:
        from attnlab import evaluate, runs, table, train
        from attnlab.sweeps.cli import main

        sys.argv = [f"attnlab.{module}", *words]
        {"train": lambda: main(train.job), "evaluate": evaluate.main, "table": table.cli, "runs": runs.main}[module]()

    return run
