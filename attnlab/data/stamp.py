"""A stamp of files: whether any of them was changed, without opening one."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def stamp(sources: Iterable[Path]) -> str:
    """16 hex digits over path, size and time of change of every file in or below `sources`; empty where there is none."""
    files = [found for source in sources for found in files_below(source)]
    lines = sorted(f"{path} {size} {changed}" for path, size, changed in files)
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()[:16] if lines else ""


def files_below(path: Path) -> Iterator[tuple[str, int, int]]:
    """(path, bytes, nanoseconds of its last change) of a file, or of every file below a folder."""
    with contextlib.suppress(OSError):
        if not path.is_dir():
            found = path.stat()
            yield str(path), found.st_size, found.st_mtime_ns
            return
        for entry in os.scandir(path):
            if entry.is_dir():
                yield from files_below(Path(entry.path))
            else:
                found = entry.stat()
                yield entry.path, found.st_size, found.st_mtime_ns
