"""Scores: `scores.npz`, the logits and OOD scores of a run, so that a later evaluator needs no pass over the data.

Arrays: `logits/<set>` (N, K), `labels/<set>` (N,), `scores/<head>/<set>` (N,), `origin` (JSON text: what they were computed from), and
`digest` over all of these. Plain arrays only: reading the file can run nothing.

Legend: N images, K classes.
"""

import hashlib
import io
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attnlab.evaluation.trained import Trained
from attnlab.records.atomic import write_atomic
from attnlab.records.images import is_of_every_byte

log = logging.getLogger("attnlab")

FILE = "scores.npz"


@dataclass(frozen=True)
class Scores:
    """logits: (logits, labels) by set. scores[head][set]: larger = more OOD. origin: see `origin_of`."""

    logits: Mapping[str, tuple[Tensor, Tensor]] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)

    def logits_for(self, origin: Mapping[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
        """The logits that stand for `origin`: of the same weights, precision, device and normalisation, and of sets of the same digest."""
        own, other = ({key: value for key, value in one.items() if key != "digests"} for one in (self.origin, origin))
        if own != other:
            return {}
        digests, wanted = self.origin.get("digests", {}), origin.get("digests", {})
        return {name: pair for name, pair in self.logits.items() if name in digests and digests[name] == wanted.get(name)}


class ScoresFile:
    """scores.npz under way: written anew whenever a trained network has more to keep. Logits of training images are not kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept = Scores()

    def keep(self, trained: Trained, described: Mapping[str, Any]) -> None:
        splits = [split for split in trained.splits_at_hand() if split != "train"]
        scores = {head: dict(sets) for head, sets in trained.scores.items()}
        if set(splits) <= set(self.kept.logits) and set(scores) <= set(self.kept.scores):
            return
        logits = {split: trained.logits(split) for split in splits}
        self.kept = Scores(logits, scores, self.kept.origin or origin_of(trained, described))
        save_scores(self.path, self.kept)


def origin_of(trained: Trained, described: Mapping[str, Any]) -> dict[str, Any]:
    """What logits depend on, as plain JSON: a digest of the network's state, precision, kind of device, and of `ImageData.describe()` the
    normalisation and the digests of the images. A set of which only a list is known (`listed:`) is never taken for another."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in trained.network.state_dict().items()}
    return {
        "network": digest_of((name, value.view(-1).view(torch.uint8).numpy()) for name, value in tensors.items()),
        "precision": str(trained.settings.resolved_precision),
        "device": trained.settings.device.type,
        "mean": list(described["mean"]),
        "std": list(described["std"]),
        "digests": {name: digest for name, digest in described["digests"].items() if is_of_every_byte(digest)},
    }


def save_scores(path: Path, found: Scores) -> Path:
    """Write all of `found` to `path`, whole or not at all."""
    arrays = {f"{kind}/{name}": value.numpy() for name, pair in found.logits.items() for kind, value in zip(("logits", "labels"), pair)}
    arrays |= {f"scores/{head}/{name}": value.numpy() for head, sets in found.scores.items() for name, value in sets.items()}
    arrays["origin"] = np.frombuffer(json.dumps(found.origin, sort_keys=True).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, digest=np.array(digest_of(arrays.items())), **arrays)
    return write_atomic(path, buffer.getvalue())


def load_scores(path: Path) -> Scores:
    """What `path` holds; nothing, and a line in the log, if it is damaged; nothing if it is not there."""
    if not path.exists():
        return Scores()
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        if str(arrays.pop("digest")) != digest_of(arrays.items()):
            raise ValueError("the arrays are not those that were written")
        origin = json.loads(arrays.pop("origin").tobytes())
        logits: dict[str, tuple[Tensor, Tensor]] = {}
        scores: dict[str, dict[str, Tensor]] = {}
        for key, array in arrays.items():
            kind, _, name = key.partition("/")
            if kind == "logits":
                logits[name] = (torch.from_numpy(array), torch.from_numpy(arrays[f"labels/{name}"]))
            elif kind == "scores":
                head, _, split = name.partition("/")
                scores.setdefault(head, {})[split] = torch.from_numpy(array)
        return Scores(logits, scores, origin)
    except Exception as error:  # zip, numpy, JSON and key errors of every kind: the file is only a saving of time
        lines = str(error).strip().splitlines()
        log.warning("%s: is damaged (%s); what it held is computed again", path, lines[0] if lines else type(error).__name__)
        return Scores()


def digest_of(arrays: Iterable[tuple[str, np.ndarray]]) -> str:
    """32 hex digits of BLAKE2b over names, dtypes, shapes and bytes, in the order of names."""
    found = hashlib.blake2b(digest_size=16)
    for name, array in sorted(arrays, key=lambda pair: pair[0]):
        array = np.ascontiguousarray(array)
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()
