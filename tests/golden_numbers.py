"""Numbers of the authors' code: `golden("components", "sam_")`, from the folder that ATTNLAB_GOLDEN names, else tests/golden."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@cache
def _arrays(name: str, prefix: str) -> dict[str, np.ndarray]:
    folder = Path(os.environ.get("ATTNLAB_GOLDEN") or Path(__file__).with_name("golden"))
    with np.load(folder / f"{name}.npz") as stored:  # of more than a thousand arrays, those that are asked for
        return {key: stored[key] for key in stored.files if key.startswith(prefix)}


def golden(name: str, prefix: str = "") -> dict[str, Tensor]:
    """The arrays of NAME.npz whose key begins with `prefix`, without it; tensors of their stored dtype, copies each time."""
    found = {key.removeprefix(prefix): torch.from_numpy(value.copy()) for key, value in _arrays(name, prefix).items()}
    if not found:
        raise KeyError(f"{name}.npz has no key that begins with {prefix!r}")
    return found
