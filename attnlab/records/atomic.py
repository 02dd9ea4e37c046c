"""Atomic files: written whole or not at all, and set aside when they cannot be trusted."""

import contextlib
import glob
import itertools
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO


class BrokenRecord(ValueError):
    """A file of a run that cannot be trusted. It was set aside; the message gives the remedy."""


@contextlib.contextmanager
def atomic_file(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """A file to write to, under a temporary name beside `path`; at the end flushed to the disk and renamed: a reader sees the old file or
    the new one, never a part. Where writing fails, nothing is left.

    durable=False leaves flushing to the system, for what can be made again: after a power failure a part may be all there is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, content: str | bytes, *, durable: bool = True) -> Path:
    """Write a whole file, see `atomic_file`."""
    with atomic_file(path, durable=durable) as file:
        file.write(content.encode() if isinstance(content, str) else content)
    return path


def sweep_temporaries(path: Path) -> None:
    """Remove what killed processes have left of their writes to `path`; for one that alone may write to it now."""
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        temporary.unlink(missing_ok=True)


def set_aside(path: Path, reason: str) -> BrokenRecord:
    """Rename a file that cannot be trusted, and return the error that reports it."""
    target = free_name(path.with_name(path.name + ".broken"))
    os.replace(path, target)
    again = "trains from the start" if path.suffix == ".ckpt" else "does what is missing"
    return BrokenRecord(f"{path}: {reason}; it was set aside as {target.name}, and the same command again {again}")


def free_name(path: Path) -> Path:
    """The first of path, path-2, path-3 ... that does not exist."""
    numbered = itertools.chain([path], (path.with_name(f"{path.name}-{n}") for n in itertools.count(2)))
    return next(candidate for candidate in numbered if not candidate.exists())


def plain_json(value: Any) -> Any:
    """Plain JSON: a number that is none becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
