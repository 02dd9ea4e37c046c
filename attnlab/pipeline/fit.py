"""Fit: a learner through its epochs, in this process or, with trainer=ddp, in several."""

import contextlib
import importlib.util
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from attnlab.callbacks.checkpoint import Checkpoint
from attnlab.callbacks.halt import Halt
from attnlab.callbacks.progress import Progress
from attnlab.config.compose import loosen, words_alone
from attnlab.config.plan import Plan
from attnlab.config.targets import ConfigError
from attnlab.data.base import ImageData
from attnlab.training.epoch import StepChunks
from attnlab.training.hardware import quiet
from attnlab.training.settings import Settings

if TYPE_CHECKING:
    from attnlab.training.learner import Learner

COMMAND = "attnlab.train"
log = logging.getLogger("attnlab")


def fit(learner: "Learner", data: ImageData, settings: Settings, *, plan: Plan, path: Path, resume: bool) -> None:
    """Train to the end, leaving `path` after epochs; from `path` on where `resume`."""
    rank = int(os.environ.get("LOCAL_RANK", 0))
    world = settings.world_size
    device = torch.device("cuda", rank) if settings.device.type == "cuda" else settings.device
    loader = data.train_loader(device, rank=rank, world_size=world)
    if len(loader) == 0:
        raise ConfigError(f"data.batch_size={data.batch_size} leaves no whole batch of training images a process; lower it")
    learner.steps_per_epoch = len(loader)
    loader.with_index = "index" in learner.asks
    if settings.compile_mode and getattr(learner.algorithm, "eager", False):
        what = f"algorithm {type(learner.algorithm).__name__} takes gradients within its terms, which torch.compile cannot trace"
        if settings.compile != "auto":
            raise ConfigError(f"trainer.compile={settings.compile}: {what}; use compile=auto or off")
        log.info("training without torch.compile: %s", what)
    elif settings.compile_mode:
        # warm for the next run of a sweep, whatever process it is in
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str((Path(plan.full["paths"]["outputs"]) / ".compiled").absolute()))
        learner.compile_objective(mode=settings.compile_mode)
    images = min(len(loader) * data.batch_size * world, len(data.split("train")))
    own: dict[str, Any] = {"progress": Progress(images_per_epoch=images)} if settings.progress and rank == 0 else {}
    if world > 1:
        own["interruption"] = Interruption()
    if plan.full["halt"]:
        own["halt"] = Halt(**plan.full["halt"])
    learner.callbacks.add({**own, "checkpoint": Checkpoint(path, seconds=settings.checkpoint_seconds)})
    trainer = settings.trainer()
    with quiet(), _children(plan, world):
        try:
            trainer.fit(learner, train_dataloaders=StepChunks(loader), ckpt_path=path if resume else None, weights_only=True)
        except SystemExit as stop:  # Lightning turns Ctrl-C and SIGTERM into one
            raise KeyboardInterrupt from stop


class Interruption:
    """The first process of ddp is interrupted, and ends the others, which hear of no signal.

    Lightning's own handler of SIGTERM tells the others by a collective, between steps that are not the same in all of them: they wait for
    one another until its time is out, half an hour. And Ctrl-C in a terminal goes to all at once: one that ends before the first looks to
    it as a failure. Lightning puts the old handlers back after `fit`.
    """

    def on_fit_start(self, learner: "Learner") -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.default_int_handler if learner.global_rank == 0 else signal.SIG_IGN)


@contextlib.contextmanager
def _children(plan: Plan, world: int) -> Iterator[None]:
    """Lightning starts the other processes of ddp by the command of this one: in a sweep, a table or a job of a cluster it must be this
    run's own."""
    main = sys.modules["__main__"]
    argv, environment, spec = list(sys.argv), dict(os.environ), main.__spec__
    alone = spec is not None and spec.name == COMMAND and not {"-m", "--multirun"} & set(argv)
    if world > 1 and not alone:
        from hydra.core.hydra_config import HydraConfig

        overrides = loosen(plan.overrides)
        sys.argv[1:] = words_alone(HydraConfig.get(), overrides) if HydraConfig.initialized() else overrides
        main.__spec__ = importlib.util.find_spec(COMMAND)
    try:
        yield
    finally:
        sys.argv[:], main.__spec__ = argv, spec
        for key in ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            os.environ.pop(key, None)
        os.environ.update({key: value for key, value in environment.items() if key not in os.environ})
