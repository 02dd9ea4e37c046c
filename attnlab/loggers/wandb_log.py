"""What W&B's folders hold: FOLDER/wandb/[offline-]run-DATE-ID/run-ID.wandb, a log of everything that was handed to a run.

W&B appends to a run what is sent under its id. So a run that goes on hands over what W&B does not have yet, and a folder whose rows are
all in a later one is put out of the way of `wandb sync`.
"""

from __future__ import annotations

import os
import shlex
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, struct.Struct("<IHB")  # the file is a LevelDB log: blocks of records (checksum, length, part) after 7 bytes
WHOLE, LAST = 1, 4  # parts that end a record
ASIDE = "superseded"


def records_of(path: Path) -> Iterator[Any]:
    """The records of a .wandb file in order, as W&B's protobuf messages, up to where a process that was killed stopped writing."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    data = path.read_bytes()
    position, payload = HEADER.size, b""
    while position + HEADER.size <= len(data):
        if (left := BLOCK - position % BLOCK) < HEADER.size:
            position += left
            continue
        _, size, part = HEADER.unpack_from(data, position)
        position += HEADER.size
        payload += data[position : position + size]
        position += size
        if part not in (WHOLE, LAST):
            continue
        record = Record()
        try:
            record.ParseFromString(payload)
        except DecodeError:
            return
        payload = b""
        yield record


def last_step(path: Path) -> int:
    """Of the rows in a .wandb file; -1 where there is none."""
    return max((record.history.step.num for record in records_of(path) if record.WhichOneof("record_type") == "history"), default=-1)


def earlier(folder: Path, run_id: str) -> tuple[list[Path], list[Path]]:
    """The .wandb files of a run in folder/wandb: those that W&B has (written online, or sent by `wandb sync`), and those it has not."""
    files = sorted((folder / "wandb").glob(f"*run-*/run-{run_id}.wandb"))
    sent = [path for path in files if not path.parent.name.startswith("offline-") or path.with_name(f"{path.name}.synced").exists()]
    return sent, [path for path in files if path not in sent]


def set_aside(files: Sequence[Path]) -> None:
    """Move the folders of .wandb files to wandb/superseded, where `wandb sync` does not look."""
    for path in files:
        target = path.parent.parent / ASIDE / path.parent.name
        target.parent.mkdir(exist_ok=True)
        os.replace(path.parent, target)


def sync_command(folders: Sequence[Path]) -> str | None:
    """The one line that sends what runs in `folders` wrote offline, and nothing twice; None where nothing is left to send."""
    unsent = [
        folder
        for folder in dict.fromkeys(folders)
        if any(not path.with_name(f"{path.name}.synced").exists() for path in folder.glob("wandb/offline-run-*/*.wandb"))
    ]
    if not unsent:
        return None
    parents = dict.fromkeys(folder.parent for folder in unsent)
    where = [f"{shlex.quote(str(unsent[0]))}/wandb"] if len(unsent) == 1 else [f"{shlex.quote(str(parent))}/*/wandb" for parent in parents]
    return " ".join(["wandb sync", *where])
