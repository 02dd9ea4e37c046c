"""Completion in bash of the commands that are not Hydra's: `eval "$(attnlab-runs -sc install=bash)"`, as attnlab-train has it."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from attnlab.config.targets import group_choices


def completed(words: Sequence[str], command: str, candidates: Callable[[Sequence[str]], Iterable[str]]) -> bool:
    """Whether a command line is about completion, after answering it on stdout.

    candidates: whole words that may follow those typed so far; one that ends in `=` goes on. bash breaks words at `=`, so of `run=dig` it
    is given what comes after.
    """
    if list(words[:1]) != ["-sc"]:
        return False
    if "install=bash" in words:
        print(f"complete -o nospace -C '{command} -sc' {command}")
        return True
    line = os.environ.get("COMP_LINE", "")
    typed, _, last = line[: int(os.environ.get("COMP_POINT", len(line)))].rpartition(" ")
    before = last[: last.rfind("=") + 1]
    for word in dict.fromkeys(candidates(typed.split()[1:])):
        if word.startswith(last):
            print(word.removeprefix(before) + ("" if word.endswith("=") else " "))
    return True


def run_ids(words: Sequence[str]) -> list[str]:
    """Of the outputs that a command line names."""
    roots = [word.partition("=")[2] for word in words if word.startswith("paths.outputs=")]
    folder = Path(roots[-1] if roots else "outputs") / "runs"
    return sorted(path.name for path in folder.glob("*-????????")) if folder.is_dir() else []


def choices(groups: Iterable[str]) -> list[str]:
    """`ood=msp` and so on."""
    return [f"{group}={choice}" for group in groups for choice in group_choices(group)]
