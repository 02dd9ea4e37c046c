"""How the wandb package is started: what it is told, what it is kept from, and whether it would find a key."""

from __future__ import annotations

import contextlib
import netrc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SETTINGS = {
    "console": "off", "silent": True, "disable_git": True, "disable_code": True, "save_code": False, "label_disable": True,
    "disable_job_creation": True, "host": "", "x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True,
    "x_save_requirements": False, "init_timeout": 20.0, "finish_timeout": 120.0, "finish_timeout_raises": True,
    "program": "attnlab.train", "symlink": False,
    "x_transaction_log_flush_interval": 1.0,  # seconds; W&B's helper process ends unheard with a process that is killed
}  # fmt: skip


def start(folder: Path, mode: str, **about: Any) -> Any:
    """A W&B run, whose files go to folder/wandb."""
    # Not a setting: W&B reads it from the environment. Its crash reports hold paths and would be sent by offline runs too.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    # Names that start with x_ are not W&B's public interface: one that a release drops must not stop the logging.
    settings = wandb.Settings(**{name: value for name, value in SETTINGS.items() if name in wandb.Settings.model_fields})
    with _without_launch():
        return wandb.init(
            mode=mode,
            dir=str(folder),
            # Offline it would shift the steps of what is sent later.
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=settings,
            **about,
        )


def has_credentials() -> bool:
    """Whether W&B would find a key for its server: WANDB_API_KEY, an identity token, or the server's host in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    files = [os.environ["NETRC"]] if os.environ.get("NETRC") else ["~/.netrc", "~/_netrc"]
    for file in files:
        try:
            if host in netrc.netrc(Path(file).expanduser()).hosts:
                return True
        except (OSError, netrc.NetrcParseError, UnicodeDecodeError, RuntimeError):  # none, unreadable, or no home folder
            continue
    return False


@contextlib.contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def _without_launch() -> Iterator[None]:
    """At the start of a run W&B looks for inputs that its Launch has staged. For that it imports all of its API, a second of CPU where
    torch is loaded; nothing can have been staged by a module that nobody imported."""
    from wandb.sdk.wandb_run import Run

    name = "_detect_and_apply_job_inputs"
    look = getattr(Run, name, None)
    if look is None or "wandb.sdk.launch" in sys.modules:
        yield
        return
    setattr(Run, name, lambda run: None)
    try:
        yield
    finally:
        setattr(Run, name, look)
