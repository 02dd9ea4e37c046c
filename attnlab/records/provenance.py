"""Provenance of a result: versions, commit and configuration."""

import contextlib
import subprocess
import time
from pathlib import Path
from typing import Any

from attnlab.config.plan import Plan
from attnlab.records.code import code_of
from attnlab.records.record import RUNNING


def started(plan: Plan) -> dict[str, Any]:
    """The part of a result that is known before anything is done."""
    return {
        "status": RUNNING,
        "stage": "build",
        "config": plan.full,
        "overrides": list(plan.overrides),
        "seed": plan.full["seed"],
        "metrics": {},
        "stage_seconds": {},
        "versions": versions(),
        "git": git_state(),
        "code": code_of(plan),
        "started": time.time(),
    }


def versions() -> dict[str, str]:
    """Of everything that can move a number."""
    import importlib.metadata
    import platform

    found = {"python": platform.python_version()}
    for package in ("attnlab", "torch", "torchvision", "pytorch-lightning", "timm", "pytorch-ood", "numpy", "hydra-core"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the checkout that attnlab runs from, and whether it was changed since; None outside one."""
    folder = Path(__file__).parents[1]

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=10, check=True).stdout.strip()

    try:
        top, commit = git("rev-parse", "--show-toplevel", "HEAD").splitlines()
        if Path(top) != folder.parent:
            return None
        return {"commit": commit, "dirty": bool(git("status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):  # no git, no checkout, no commit
        return None
