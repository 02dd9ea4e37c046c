"""Partial: what an evaluator has found so far of long work, in the run's folder until it ends: a run that is killed goes on from there.

    found = trained.kept("gradcam")        # None: it was not finished
    if found is None:
        found = ...                        # mappings, lists, tensors, numbers, texts
        trained.keep("gradcam", found)

`partial-<evaluator>.ckpt` is sealed by a digest as a checkpoint is, reading it can run nothing, and a file that is damaged, or of another
network, precision, device or other images (`attnlab.evaluation.scores.origin_of`), counts as not there. With every part stand the states of
PyTorch's generators at its end: what comes after it draws what it would have drawn.
"""

import functools
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from attnlab.records.atomic import write_atomic
from attnlab.records.checkpoint import digest, seal


class PartialFile:
    """The parts of one evaluator's work. origin: what they depend on, asked for once, when the first part is."""

    def __init__(self, path: Path, origin: Callable[[], Mapping[str, Any]], device: torch.device) -> None:
        self.path, self.device = path, device
        self._origin = origin

    @functools.cached_property
    def origin(self) -> Mapping[str, Any]:
        return self._origin()

    @functools.cached_property
    def parts(self) -> dict[str, Any]:
        try:
            content = torch.load(self.path, map_location="cpu", weights_only=True)
            whole = content["attnlab"]["digest"] == digest(content) and content["origin"] == self.origin
            return content["parts"] if whole else {}
        except Exception:  # zip, pickle, key and type errors of every kind, and no file
            return {}

    def get(self, name: str) -> Any:
        """The part of that name, and the generators as they were at its end; None where there is none."""
        if name not in self.parts:
            return None
        part = self.parts[name]
        torch.set_rng_state(part["cpu"])
        if part["cuda"] is not None:
            torch.cuda.set_rng_state(part["cuda"], self.device)
        return part["found"]

    def put(self, name: str, found: Any) -> None:
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        self.parts[name] = {"found": found, "cpu": torch.get_rng_state(), "cuda": cuda}
        content = {"origin": dict(self.origin), "parts": self.parts}
        seal(content)
        buffer = io.BytesIO()
        torch.save(content, buffer)
        write_atomic(self.path, buffer.getvalue())

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
