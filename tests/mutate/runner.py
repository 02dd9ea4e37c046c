"""One forked child a mutant: the parent has imported torch and pytest, so that a mutant costs its tests and nothing else."""

import ast
import gc
import importlib
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import CodeType

from tests import ROOT
from tests.mutate.mutations import Mutation

SLOW = 2.0  # seconds of CPU: a test that takes longer alone is left out; most of those compile
OPTIONS = (
    "-x",
    "-q",
    *(f"-pno:{plugin}" for plugin in ("cacheprovider", "randomly", "xdist")),
    "-oaddopts=",
    "--strict-markers",
    "-Wignore::pytest.PytestAssertRewriteWarning",
)  # fmt: skip; of what the parent has imported
SURVIVED, KILLED, TIMEOUT, BROKEN = "survived", "killed", "timeout", "broken"


class _Mutated(MetaPathFinder):
    """Imports one module from a syntax tree."""

    def __init__(self, module: str, path: Path, tree: ast.Module) -> None:
        self.module, self.path, self.tree = module, path, tree

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != self.module:
            return None
        tree = self.tree

        class Loader(SourceFileLoader):
            def get_code(self, fullname: str) -> CodeType:
                return compile(tree, self.path, "exec")

        return spec_from_file_location(name, self.path, loader=Loader(name, str(self.path)))


class _Order:
    """A pytest plugin: quick tests first, slow ones not at all; how much CPU each took (the machine may be busy with other things)."""

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.known, self.seconds, self.failed, self.last = seconds or {}, {}, [], 0.0

    def pytest_collection_modifyitems(self, items: list) -> None:
        items[:] = [item for item in items if self.known.get(item.nodeid, 0) <= SLOW]
        items.sort(key=lambda item: self.known.get(item.nodeid, 0))
        self.last = time.process_time()

    def pytest_runtest_logreport(self, report: object) -> None:
        now = time.process_time()
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + now - self.last
        self.last = now
        if report.failed:
            self.failed.append(report.nodeid)


class Bench:
    """The tests of one file, ready to be run on mutants of it.

    tests: paths and node ids. Raises RuntimeError: they do not pass as things stand.
    """

    def __init__(self, module: str, path: Path, tests: Sequence[str]) -> None:
        self.module, self.path, self.tests = module, path, list(tests)
        _import_all(["torch", "numpy", "pytest", "hypothesis"])
        answer = self._in_child(self._try, limit=900)
        code, self.seconds, failed, modules = answer if answer is not None else (None, {}, [], [])
        if code != 0:
            raise RuntimeError(f"the tests of {module} do not pass unmutated: {', '.join(failed) or f'pytest ended with {code}'}")
        _import_all(modules)
        gc.collect()
        gc.freeze()  # no child looks through what the parent has made
        self.limit = 10 + 4 * sum(time for time in self.seconds.values() if time <= SLOW)  # of CPU

    def run(self, tree: ast.Module, mutations: Sequence[Mutation], jobs: int = 1) -> Iterator[tuple[Mutation, str]]:
        """Each mutation with what became of it, in the order in which they end."""
        waiting, running = list(reversed(mutations)), {}
        while waiting or running:
            while waiting and len(running) < jobs:
                one = waiting.pop()
                running[self._fork(lambda one=one: self._judge(tree, one))] = one, time.monotonic() + 60 + 20 * self.limit
            pid, status = self._ended({pid: end for pid, (_, end) in running.items()})
            yield running.pop(pid)[0], status

    def _judge(self, tree: ast.Module, mutation: Mutation) -> int:
        signal.setitimer(signal.ITIMER_PROF, self.limit)  # SIGPROF ends it
        mutation.apply()
        sys.meta_path.insert(0, _Mutated(self.module, self.path, tree))
        return self._pytest(_Order(self.seconds))

    def _try(self) -> tuple[int, dict[str, float], list[str], list[str]]:
        order = _Order()
        code = self._pytest(order)
        return code, order.seconds, order.failed, [name for name, module in sys.modules.items() if _is_installed(module)]

    def _pytest(self, order: _Order) -> int:
        import hypothesis
        import pytest

        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)  # a failure need not be made small
        hypothesis.settings.register_profile("mutate", derandomize=True, database=None, deadline=None, phases=phases)
        hypothesis.settings.load_profile("mutate")
        return int(pytest.main([*OPTIONS, f"--basetemp={tempfile.tempdir}/pytest", *self.tests], plugins=[order]))

    def _in_child(self, work: Callable[[], object], limit: float) -> object:
        """What `work` gives in a child of its own; None if it died."""
        with tempfile.NamedTemporaryFile() as answer:
            pid = self._fork(lambda: Path(answer.name).write_bytes(pickle.dumps(work())) and 0)
            self._ended({pid: time.monotonic() + limit})
            return pickle.loads(data) if (data := Path(answer.name).read_bytes()) else None

    def _fork(self, work: Callable[[], int]) -> int:
        folder = tempfile.mkdtemp(prefix="mutant")
        pid = os.fork()
        if pid:
            self._folders = {**getattr(self, "_folders", {}), pid: folder}
            return pid
        code = 3
        try:
            os.setsid()  # what it starts dies with it
            log = os.open(os.environ.get("MUTATE_LOG", os.devnull), os.O_RDWR | os.O_CREAT | os.O_APPEND)
            for stream in (0, 1, 2):
                os.dup2(log, stream)
            sys.dont_write_bytecode = True
            tempfile.tempdir = os.environ["TMPDIR"] = folder
            code = work()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _ended(self, ends: dict[int, float]) -> tuple[int, str]:
        """The first of some children that ends, or is ended because its time is over."""
        pause = 0.002
        while True:
            for pid, end in ends.items():
                done, status = os.waitpid(pid, os.WNOHANG)
                if not done and time.monotonic() > end:
                    os.killpg(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                if done or time.monotonic() > end:
                    shutil.rmtree(self._folders.pop(pid), ignore_errors=True)
                    return pid, _status(os.waitstatus_to_exitcode(status) if done else None)
            time.sleep(pause)
            pause = min(0.05, 1.5 * pause)


def _status(code: int | None) -> str:
    """Of a child's exit code: pytest's 1 is a failed test, 2 a test file that could not be imported; below 0 a signal."""
    if code is None or code in (-signal.SIGPROF, -signal.SIGKILL):
        return TIMEOUT
    return SURVIVED if code == 0 else KILLED if code in (1, 2) or code < 0 else BROKEN


def _is_installed(module: object) -> bool:
    """Of the standard library or of a package; not ours, of which each child must import its own."""
    return (getattr(module, "__file__", None) or "").startswith((sys.prefix, sys.base_prefix))


def _import_all(modules: Sequence[str]) -> None:
    """Into this process, once for all children; what cannot be imported here is left to them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in modules:
            if name not in sys.modules and not name.startswith("_") and "__main__" not in name:
                try:
                    importlib.import_module(name)
                except Exception:
                    continue


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()
