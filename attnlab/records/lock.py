"""Locks between processes: one holds, another reports whom it waits for. A lock goes with its process, however that ends."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from attnlab.records.atomic import sweep_temporaries, write_atomic

if TYPE_CHECKING:
    from filelock import FileLock

PATIENCE = 5.0  # seconds for a process that has just taken the lock to write its name


@contextlib.contextmanager
def hold(path: Path, *, waiting: Callable[[str], None], name: str = "") -> Iterator[None]:
    """Hold the lock at `path` (ending in .lock). Where another process has it, `waiting(who)` is called first, once; `who` is the holder:
    its `name`, process, host and time."""
    from filelock import FileLock

    path.parent.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(path), path.with_suffix(".owner")
    _acquire(lock, owner, waiting)
    try:
        sweep_temporaries(owner)
        moment = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        write_atomic(owner, ", ".join([*([name] if name else []), f"process {os.getpid()} on {socket.gethostname()}", f"since {moment}"]))
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: "FileLock", owner: Path, waiting: Callable[[str], None]) -> None:
    from filelock import Timeout

    who = ""
    for patience in (0.0, PATIENCE):
        try:
            lock.acquire(timeout=patience)
            return
        except Timeout:
            with contextlib.suppress(OSError):
                who = owner.read_text().strip()
        if who:
            break
    waiting(who or "another process")
    lock.acquire()


@contextlib.contextmanager
def hold_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock at `path` where nobody has it; gives whether."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock, without making one. Where the system cannot answer: no."""
    try:
        import fcntl

        with open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
    except (ImportError, OSError):
        return False
    return False
