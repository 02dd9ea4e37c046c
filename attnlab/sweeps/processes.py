"""Processes: a job's process does not outlive the one that started it."""

import contextlib
import ctypes
import os
import signal

PARENT = "ATTNLAB_PARENT"  # process that a job must not outlive


def die_with_parent() -> None:
    """In a process that a launcher or trainer=ddp started: be killed when the parent ends, however it ends (Linux)."""
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        if not int(os.environ.get("LOCAL_RANK", 0)):
            return
        parent = os.getppid()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a sweep in a shell's background; the launcher stops its jobs by it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != int(parent):  # it ended before we asked
            os.kill(os.getpid(), signal.SIGKILL)
