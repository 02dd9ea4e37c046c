"""Cache: files that save a table's commands work, under $XDG_CACHE_HOME/attnlab (~/.cache/attnlab). Deleting them costs time alone."""

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from attnlab.records.atomic import write_atomic

DAYS = 30.0  # a file that nobody has asked for so long is removed


def cache_dir(kind: str) -> Path:
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "attnlab" / kind


def digest(value: Any) -> str:
    """32 hex digits of bytes, or of a plain value's JSON."""
    return hashlib.sha256(value if isinstance(value, bytes) else json.dumps(value).encode()).hexdigest()[:32]


def read(path: Path) -> bytes | None:
    """What a file of the cache holds, or None; a file that is read counts as asked for."""
    try:
        content = path.read_bytes()
        if time.time() - path.stat().st_mtime > 86400:
            os.utime(path)
    except OSError:
        return None
    return content


def write(path: Path, content: bytes) -> None:
    """As well as can be: a home that is full or read-only costs time alone, and so does a file cut short, which its reader notices.
    The first file of a day removes the old ones."""
    with contextlib.suppress(OSError):
        write_atomic(path, content, durable=False)
        swept = path.parent / ".swept"
        if not swept.exists() or time.time() - swept.stat().st_mtime > 86400:
            swept.touch()
            for old in path.parent.iterdir():
                if time.time() - old.stat().st_mtime > DAYS * 86400:
                    old.unlink(missing_ok=True)
