"""Teacher: which network `teacher=` names, as far as a run's identity needs it: the address of its training, whatever path leads there.

    teacher=ID                a run of paths.outputs: its id, or the beginning of its address
    teacher=FOLDER            a run anywhere
    teacher=training:1a2b3c4d a training address; what an id and a folder come to, and what tables write
    teacher=FILE              weights of the student's own architecture (.safetensors, or a state dict in .pt, .pth or .ckpt)

Of a record only `status`, `training` and `command` are used, and nothing of it is run.
"""

import functools
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from attnlab.config.result import FINISHED, read_result
from attnlab.config.suggest import nearest
from attnlab.config.targets import ConfigError

TRAINING, WEIGHTS = "training:", "weights:"
WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".ckpt")
ADDRESS = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True)
class Teacher:
    """identity: `training:<address>` or `weights:<digest>`, part of the student's address. path: where it was found, if it was."""

    identity: str
    path: str | None = None


def find_teacher(word: str, *, outputs: Path) -> Teacher:
    """What a word after `teacher=` names. ConfigError, one line: there is no such run, it is not finished, or several begin like that.

    A training address need not be there yet (see `trained`): it identifies the teacher by itself.
    """
    kind, _, rest = word.partition(":")
    if f"{kind}:" in (TRAINING, WEIGHTS):
        if not ADDRESS.fullmatch(rest):
            raise ConfigError(f"teacher={word}: must be {kind}: and eight hex digits")
        return Teacher(word)
    path = Path(word)
    if path.is_file():
        if path.suffix not in WEIGHT_FILES:
            raise ConfigError(
                f"teacher={word}: is no file of weights ({', '.join(WEIGHT_FILES)}); give a run's folder, its id or such a file"
            )
        return Teacher(WEIGHTS + _digest(path.resolve(), path.stat().st_mtime_ns), word)
    folder = path if path.is_dir() else _named(word, outputs)
    return Teacher(TRAINING + _training(word, folder), str(folder))


def trained(address: str, outputs: Path) -> Path | None:
    """The folder of a finished run that has done the training of this address."""
    announced = outputs / "runs" / ".trainings" / address
    name = announced.read_text(errors="replace").strip() if announced.is_file() else ""
    if re.fullmatch(r"[\w.+=-]+", name) and _is(outputs / "runs" / name, address):
        return outputs / "runs" / name
    return next((folder for folder in _runs(outputs) if _is(folder, address)), None)


def _is(folder: Path, address: str) -> bool:
    found = read_result(folder)
    return found.status == FINISHED and found.result.get("training") == address


def _named(word: str, outputs: Path) -> Path:
    folders = list(_runs(outputs))
    hits = [folder for folder in folders if folder.name == word]
    hits = hits or [folder for folder in folders if word and folder.name.rpartition("-")[2].startswith(word)]
    if len(hits) > 1:
        raise ConfigError(f"teacher={word}: {', '.join(folder.name for folder in hits[:5])} begin like that; give more of one")
    if not hits:
        names = [folder.name for folder in folders]
        near = nearest(word, names) if names else "no run is there"
        raise ConfigError(f"teacher={word}: there is no such run in {outputs / 'runs'}, folder or file; {near}")
    return hits[0]


def _training(word: str, folder: Path) -> str:
    found = read_result(folder.resolve())  # a link may be named as it likes
    if not found.result:
        raise ConfigError(f"teacher={word}: {folder} is no finished run; {found.error or 'it has no result.json'}")
    if found.status != FINISHED:
        command = f"; train it first: {found.result['command']}" if "command" in found.result else ""
        raise ConfigError(f"teacher={word}: {folder.name} is not finished ({found.status}){command}".replace("\n", " "))
    training = found.result.get("training", "")
    if not ADDRESS.fullmatch(training):
        raise ConfigError(f"teacher={word}: the record of {folder.name} holds no training address; run it again with this version")
    return training


def _runs(outputs: Path) -> Iterator[Path]:
    """The folders of runs, by name; what was set aside (`.old`) is none."""
    runs = outputs / "runs"
    if runs.is_dir():
        yield from (path for path in sorted(runs.iterdir()) if ADDRESS.fullmatch(path.name.rpartition("-")[2]) and path.is_dir())


@functools.lru_cache
def _digest(path: Path, changed: int) -> str:
    """Eight hex digits of a file's contents; `changed` is when it was, so that a sweep reads it once."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:8]
