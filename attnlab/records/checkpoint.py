"""Checkpoints: read without running anything, and only if they are whole, this run's, and fit the network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnlab.records.atomic import set_aside


def read_checkpoint(path: Path, owners: Sequence[str], present: Mapping[str, Any]) -> dict[str, Any]:
    """A checkpoint, if it is whole, of the training (or, in an early one, the address) `owners`, and fits the state dict `present`;
    else it is set aside (BrokenRecord)."""
    checkpoint, wrong = inspect_checkpoint(path, owners, present)
    if wrong:
        raise set_aside(path, wrong)
    return checkpoint


def inspect_checkpoint(path: Path, owners: Sequence[str], present: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """A checkpoint, and what is wrong with it."""
    import torch

    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        told, state = checkpoint["attnlab"], checkpoint["state_dict"]
        owner, history = told["training"] if "training" in told else told["address"], told["history"]
    except OSError:
        raise
    except Exception as error:  # zip, pickle and key errors of every kind
        lines = str(error).strip().splitlines()
        return {}, f"is damaged ({lines[0] if lines else type(error).__name__})"
    if owner not in owners:
        return {}, f"belongs to another run ({owner})"
    for name in {**present, **state}:
        if name not in present and name.startswith("term_modules."):  # of loss terms, of which a network that is only tested has none
            continue
        if name not in state or name not in present or state[name].shape != present[name].shape:
            return {}, f"does not fit this network (at {name})"
    if not history or not all(isinstance(row, dict) and "seconds" in row for row in history):
        return {}, "is damaged (no history)"
    return checkpoint, ""
