"""Commands without the seconds that a fresh Python needs to import torch: `python -m MODULE WORDS` in a fork of this process.

What a command is must not depend on that: tests of the start itself (`--help` is quick, nothing heavy is imported) use a fresh process.
This one has a single thread, so that a fork is safe; nothing that a child does reaches it or the next child.
"""

import contextlib
import dataclasses
import functools
import os
import resource
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path

from tests import ROOT


@functools.cache
def warm() -> None:
    """Import what a run needs, and let Hydra find its plugins: once for all children."""
    import torch

    torch.set_num_threads(1)
    import sklearn.datasets  # noqa: F401
    import torchvision  # noqa: F401

    import attnlab.evaluation.runner
    import attnlab.figures
    import attnlab.pipeline.dry_run
    import attnlab.pipeline.reevaluate
    import attnlab.pipeline.train
    import attnlab.sweeps.sweep
    import attnlab.tables.fill
    import attnlab.tables.todo
    import attnlab.training.learner  # noqa: F401
    from attnlab.config.compose import compose

    compose()


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


class Forked:
    """As `subprocess.Popen`, as far as tests need it; stdout and stderr are files until `communicate` or `end`.

    work: what the child does; its end, SystemExit or exception end the child as they end a Python process. output: one file for both
    streams, in place of files of its own. session: whether the child leads a session of its own. path: a folder to look for modules in.
    memory: bytes of address space that it may have.
    """

    def __init__(
        self,
        work: Callable[[], object],
        *words: object,
        cwd: Path = ROOT,
        env: Mapping[str, str] | None = None,
        output: Path | None = None,
        session: bool = False,
        path: Path | None = None,
        memory: int | None = None,
    ) -> None:
        warm()
        self.session, self.began = session, time.monotonic()
        self.outputs = [os.open(output, os.O_CREAT | os.O_RDWR | os.O_APPEND)] * 2 if output else [_nameless(), _nameless()]
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            try:
                _become(work, [str(word) for word in words], self.outputs, cwd, env, session, path, memory)
            finally:
                os._exit(70)  # a child never goes on as pytest

    def poll(self) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if pid else None
        return self.returncode

    def wait(self, timeout: float = 300.0) -> int:
        end, pause = time.monotonic() + timeout, 0.002
        while self.poll() is None:
            if time.monotonic() > end:
                self.kill()
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout, *self.read())
            time.sleep(pause)
            pause = min(0.02, pause * 1.5)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def read(self) -> tuple[str, str]:
        """What it has written to stdout and to stderr."""
        return tuple(os.pread(output, os.fstat(output).st_size, 0).decode(errors="replace") for output in self.outputs)

    def communicate(self, timeout: float = 300.0) -> tuple[str, str]:
        self.wait(timeout)
        said = self.read()
        for output in set(self.outputs):
            os.close(output)
        return said

    def end(self, timeout: float = 120.0) -> Ended:
        """How it ended, at the latest after `timeout` seconds; whatever is left of a session of its own is killed."""
        hung = False
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired:
            hung = True
            self.wait()
        seconds = time.monotonic() - self.began
        if self.session:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        return Ended(self.returncode, *self.communicate(), seconds, hung)


def module(name: str) -> Callable[[], object]:
    """What `python -m NAME` does, as the work of a `Forked`."""

    def run() -> None:
        sys.modules.pop(name, None)  # a fresh process has not imported it
        runpy._run_module_as_main(name)

    return run


def start(name: str, *words: object, **options: object) -> Forked:
    """`python -m NAME WORDS`; options as of `Forked`."""
    return Forked(module(name), *words, **options)


def command(name: str, *words: object, timeout: float = 300.0, **options: object) -> subprocess.CompletedProcess:
    """`python -m NAME WORDS` and its end."""
    process = start(name, *words, **options)
    stdout, stderr = process.communicate(timeout)
    return subprocess.CompletedProcess(["python", "-m", name, *map(str, words)], process.returncode, stdout, stderr)


def script(name: str, *words: object, timeout: float = 300.0, **options: object) -> Ended:
    """`python scripts/NAME WORDS`."""
    path = ROOT / "scripts" / name
    return Forked(lambda: runpy.run_path(str(path), run_name="__main__"), *words, path=path.parent, **options).end(timeout)


def _nameless() -> int:
    """A file that is gone with its last descriptor."""
    number, path = tempfile.mkstemp()
    os.unlink(path)
    return number


def _become(
    work: Callable[[], object],
    words: list[str],
    outputs: list[int],
    cwd: Path,
    env: Mapping[str, str] | None,
    session: bool,
    path: Path | None,
    memory: int | None,
) -> None:
    """The child: the streams, folder, arguments, signals, warnings and state of Hydra of a fresh process; never returns."""
    code = 1
    try:
        if session:
            os.setsid()
        if memory is not None:
            resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        null = os.open(os.devnull, os.O_RDONLY)
        for number, source in enumerate((null, *outputs)):
            os.dup2(source, number)
        sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.chdir(cwd)
        if path is not None:
            sys.path.insert(0, str(path))
        if env is not None:
            os.environ.clear()
            os.environ.update(env)
        for name in [name for name in os.environ if name.startswith("PYTEST_")]:
            del os.environ[name]
        _fresh()
        sys.argv = ["-m", *words]
        work()
        code = 0
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        code = error.code if isinstance(error.code, int) else 0 if error.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)  # none of pytest's own last steps


def _fresh() -> None:
    import logging

    from hydra.core.global_hydra import GlobalHydra

    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)
    GlobalHydra.instance().clear()
    for logger in (logging.getLogger(), logging.getLogger("attnlab"), logging.getLogger("hydra")):
        logger.handlers.clear()
    logging.getLogger().setLevel(logging.WARNING)
