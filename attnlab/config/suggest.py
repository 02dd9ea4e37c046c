"""Suggest: the known names nearest to a mistyped one. Imports nothing heavy."""

import difflib
from collections.abc import Sequence


def nearest(word: str, names: Sequence[str], count: int = 5, *, prefix: str = "") -> str:
    """`nearest: a, b`, or the whole list where it is short and nothing is near; each with `prefix` before it."""
    close = difflib.get_close_matches(word, names, n=count, cutoff=0.5)
    tail = [name for name in names if name.rpartition(".")[2] == word.rpartition(".")[2] and name not in close]
    close = (close + tail)[:count]
    if close:
        return "nearest: " + ", ".join(prefix + name for name in close)
    short = [name for name in names if "." not in name][:20] or list(names)[:count]
    rest = f" and {len(names) - len(short):,} more" if len(short) < len(names) else ""
    return "known: " + ", ".join(prefix + name for name in short) + rest
