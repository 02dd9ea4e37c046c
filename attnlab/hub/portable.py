"""Portable: a record as it may leave the machine that made it: no path, nothing of its environment."""

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from attnlab.config.groups import having
from attnlab.config.overrides import key_of, permits

# of a result.json, what a reader elsewhere can use
KEPT = ("run_id", "status", "seed", "config", "overrides", "metrics", "training", "places", "parameters", "epochs", "seconds", "data")
KEPT += ("images_per_second", "device", "device_kind", "precision", "threads", "versions", "git", "code", "warnings")
MACHINE = ("paths", *having(counts=False))  # of a configuration: loggers name accounts
ROOT = re.compile(r"(?:^|[\s:=,'\"\[({])(?:~|\.{0,2}[/\\]|[A-Za-z]:[/\\])")  # how a path begins, also inside a text
PATHS = ("path", "root", "file", "folder", "dir", "weights")  # the last word of a key whose text is a path, however it begins
WORD = re.compile(r"'[^']*'|\"[^\"]*\"|[^\s\[\]{},'\"]+")


def portable(result: Mapping[str, Any]) -> dict[str, Any]:
    """A finished run's result for other machines: of paths the last part is left, and of the data no times of files."""
    kept = {key: result[key] for key in KEPT if key in result}
    kept["config"] = {key: value for key, value in result["config"].items() if key not in MACHINE}
    kept["data"] = {key: value for key, value in result.get("data", {}).items() if key != "stamp"}
    kept["overrides"] = [_word(word) for word in result.get("overrides", []) if not _of_the_machine(word)]
    return _cleaned(kept)


def command(overrides: Sequence[str]) -> str:
    return shlex.join(["python", "-m", "attnlab.train", *overrides])


def _of_the_machine(word: str) -> bool:
    return permits(word) or key_of(word).partition(".")[0] in MACHINE


def _word(word: str) -> str:
    """An override: `data.path=/home/me/birds` is `data.path=birds`."""
    key, sign, value = word.partition("=")
    if is_path(value, key) and not value.startswith(("[", "{")):
        return f"{key}{sign}{_name(value)}"
    return f"{key}{sign}{WORD.sub(lambda found: _name(found[0]) if is_path(found[0], '') else found[0], value)}"


def _cleaned(node: Any, key: str = "") -> Any:
    if isinstance(node, Mapping):
        return {name: _cleaned(value, str(name)) for name, value in node.items()}
    if isinstance(node, list | tuple):
        return [_cleaned(value, key) for value in node]
    if isinstance(node, str) and "${" in node:  # a reference that nobody has resolved
        return None
    return _name(node) if isinstance(node, str) and is_path(node, key) else node


def is_path(text: str, key: str) -> bool:
    """Whether a text names a place on a disk. `test/acc`, `layer4.*` and `hf-hub:timm/resnet18` do not."""
    own = re.split(r"[._]", key)[-1] in PATHS and re.search(r"[/\\]", text)
    return bool(own or ROOT.search(text))


def _name(text: str) -> str:
    return re.split(r"[/\\]", text.strip("'\" ").rstrip("/\\"))[-1].lstrip("~") or "folder"
