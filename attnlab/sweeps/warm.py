"""Warm jobs: a process that has imported what a run needs forks once a job, so that a job starts at once instead of in seconds.

On a CPU only: a driver of a GPU does not survive a fork, and what libraries ask it at import is theirs. The process has run nothing, no
other thread is in it, and a job's process is a fork with arguments, environment, output and process group of its own; it draws its random
numbers from its own seed as every run does, so the numbers are those of a process that started by itself (tests/sweeps/test_warm.py).
"""

import contextlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from attnlab.sweeps.processes import PARENT, die_with_parent

CODE = "from attnlab.sweeps.warm import serve; serve()"


class Warm:
    """The forking process, as its launcher sees it; `alive` is False once it has ended, however."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", CODE, str(theirs.fileno())], env={**environment, PARENT: str(os.getpid())},
                pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, process_group=0,
            )  # fmt: skip
        self.codes: dict[int, int] = {}

    def start(self, words: Sequence[str], environment: Mapping[str, str], output: int) -> "WarmProcess | None":
        """`python -m attnlab.train WORDS`, its output to a descriptor. None: there is no forking process any more."""
        request = json.dumps({"words": list(words), "environment": dict(environment), "folder": str(Path.cwd())}).encode()
        with contextlib.suppress(OSError):
            socket.send_fds(self.channel, [len(request).to_bytes(4)], [output])
            for begin in range(0, len(request), 60_000):
                self.channel.send(request[begin : begin + 60_000])
            while (message := self._receive()) is not None:
                if "started" in message:
                    return WarmProcess(self, message["started"])
        return None

    def update(self) -> None:
        """Note which jobs have ended."""
        while select.select([self.channel], [], [], 0)[0] and self._receive() is not None:
            pass

    def _receive(self) -> dict[str, int] | None:
        with contextlib.suppress(OSError):
            if data := self.channel.recv(4096):
                message = json.loads(data)
                if "ended" in message:
                    self.codes[message["ended"]] = message["code"]
                return message
        return None

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        self.channel.close()
        if self.alive:
            self.process.kill()
        self.process.wait()


class WarmProcess:
    """A job, as `subprocess.Popen` shows one: `pid`, `returncode`, `poll`."""

    def __init__(self, warm: Warm, pid: int) -> None:
        self.warm, self.pid, self.returncode = warm, pid, None

    def poll(self) -> int | None:
        if self.returncode is None:
            alive = self.warm.alive  # asked first: what it said before it ended is still read
            self.warm.update()
            self.returncode = self.warm.codes.pop(self.pid, None if alive else -signal.SIGKILL)  # jobs end with the process they came from
        return self.returncode


def serve() -> None:
    """The forking process: a job's fork comes back from `_next_job` and is `python -m attnlab.train`."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher's affair
    # what a run imports when it comes to it: Lightning and with it the compiler, the evaluators, matplotlib
    import attnlab.evaluation.runner
    import attnlab.figures
    import attnlab.pipeline.train
    import attnlab.training.learner  # noqa: F401

    if threading.active_count() > 1:  # a library's thread may hold a lock, which would stay locked in a fork
        return
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        words = _next_job(channel)
    if words is not None:
        sys.argv = ["attnlab.train", *words]
        runpy.run_module("attnlab.train", run_name="__main__", alter_sys=True)


def _next_job(channel: socket.socket) -> list[str] | None:
    """Forks as asked, until there is nobody to ask. In a fork: the job's words."""
    parent = os.getpid()
    while True:
        asked = bool(select.select([channel], [], [], 0.05)[0])
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                channel.send(json.dumps({"ended": ended[0], "code": os.waitstatus_to_exitcode(ended[1])}).encode())
        if not asked:
            continue
        head, outputs, *_ = socket.recv_fds(channel, 4, 1)
        if not head:
            return None
        (output,), request = outputs, b""
        while len(request) < int.from_bytes(head):
            request += channel.recv(60_000)
        job = json.loads(request)
        pid = os.fork()
        if pid == 0:
            _become(job, output, parent)
            return job["words"]
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        os.close(output)
        channel.send(json.dumps({"started": pid}).encode())


def _become(job: Mapping, output: int, parent: int) -> None:
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (1, 2):
        os.dup2(output, number)
    os.close(output)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    os.environ[PARENT] = str(parent)
