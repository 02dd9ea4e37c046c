"""Checkpoints: sealed with a digest of their contents; read without running anything, and only if they are whole, this run's, and fit the
network."""

import struct
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from attnlab.records.atomic import set_aside

# in a state dict: what belongs to the terms of the loss. Trained with the network, no part of it: a network that is only tested has none
TERMS = "term_modules."


def seal(checkpoint: dict[str, Any]) -> None:
    """Put the digest of everything else in `checkpoint` into `checkpoint["attnlab"]["digest"]`; the last thing done before it is written.

    A checkpoint is plain data: mappings, sequences, sets, tensors, numbers, texts, None. TypeError for anything else, which
    `torch.load(weights_only=True)` would refuse, too.
    """
    checkpoint.setdefault("attnlab", {})["digest"] = digest(checkpoint)


def digest(checkpoint: Mapping[str, Any]) -> str:
    """32 hex digits over every tensor (type, shape, bytes) and every plain value, without `checkpoint["attnlab"]["digest"]` itself.

    The order of a mapping's keys does not count. Tensors are read in place; those of a GPU are copied to the host one by one.
    """
    import hashlib

    sums = hashlib.blake2b(digest_size=16)
    own = {key: value for key, value in checkpoint.get("attnlab", {}).items() if key != "digest"}
    _absorb(sums, {**checkpoint, "attnlab": own})
    return sums.hexdigest()


def _absorb(sums: Any, value: Any) -> None:
    """Every value enters as a tag of its type, a length, and its bytes, so that no two different trees give the same bytes."""
    import torch

    def put(tag: str, content: Any) -> None:
        sums.update(f"{tag}:{len(content)}:".encode())
        sums.update(content)

    if isinstance(value, torch.Tensor):
        put("tensor", f"{value.dtype} {tuple(value.shape)}".encode())
        whole = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        put("bytes", memoryview(whole.view(torch.uint8).numpy()))
    elif isinstance(value, Mapping):
        sums.update(f"mapping:{len(value)}:".encode())
        for key in sorted(value, key=lambda key: (type(key).__name__, str(key))):
            _absorb(sums, key)
            _absorb(sums, value[key])
        if getattr(value, "__dict__", None):  # a state dict's versions
            _absorb(sums, vars(value))
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        sums.update(f"sequence:{len(value)}:".encode())
        for item in value:
            _absorb(sums, item)
    elif isinstance(value, Set):
        _absorb(sums, sorted(value, key=lambda item: (type(item).__name__, str(item))))
    elif isinstance(value, float):
        put("float", struct.pack("<d", value))
    elif isinstance(value, bool | int | str | None | torch.dtype | torch.device):
        put(type(value).__name__, str(value).encode())
    elif isinstance(value, bytes | bytearray):
        put("bytes", value)
    else:
        raise TypeError(f"a checkpoint holds plain data and tensors, not {type(value).__module__}.{type(value).__qualname__}")


def read_checkpoint(path: Path, owners: Sequence[str], present: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint, if it is whole, of the training (or, in an early one, the address) `owners`, and fits the state dict `present`;
    else it is set aside (BrokenRecord)."""
    checkpoint, wrong = inspect_checkpoint(path, owners, present)
    if wrong:
        raise set_aside(path, wrong)
    return checkpoint


def inspect_checkpoint(path: Path, owners: Sequence[str], present: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """A checkpoint, and what is wrong with it ("": nothing). OSError where the file cannot be read at all."""
    import torch

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        own, state = checkpoint["attnlab"], checkpoint["state_dict"]
        owner, history = own["training"] if "training" in own else own["address"], own["history"]
        sealed = own.get("digest")  # a checkpoint from before there were digests has none and is taken as it is
        if sealed is not None and sealed != digest(checkpoint):
            return {}, "is damaged (its contents are not what was written)"
    except Exception as error:  # zip, pickle, key and type errors of every kind; a file cut short may end in an OSError
        _must_be_readable(path)
        first = str(error).strip().partition("\n")[0].partition(". ")[0]  # torch goes on with advice to load what may run code
        return {}, f"is damaged ({first or type(error).__name__})"
    if owner not in owners:
        return {}, f"belongs to another run ({owner})"
    for name in {**present, **state}:
        if name not in present and name.startswith(TERMS):
            continue
        if name not in state or name not in present or state[name].shape != present[name].shape:
            return {}, f"does not fit this network (at {name})"
    if not history or not all(isinstance(row, dict) and "seconds" in row for row in history):
        return {}, "is damaged (no history)"
    return checkpoint, ""


def _must_be_readable(path: Path) -> None:
    """OSError where the file or the disk fails, so that a file which nobody could read is not called damaged."""
    with open(path, "rb") as file:
        while file.read(1 << 24):
            pass
