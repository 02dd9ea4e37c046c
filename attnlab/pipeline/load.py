"""Load: the trained network of a finished run or of a model hub, for use anywhere; its images need not be there."""

import contextlib
import logging
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from attnlab.config.checks import check
from attnlab.config.plan import Plan
from attnlab.config.result import read_result
from attnlab.config.targets import ConfigError
from attnlab.data.loader import num_batches
from attnlab.data.task import OneLabel
from attnlab.pipeline.factory import make_learner
from attnlab.pipeline.pushed import HUB, fetched, is_pushed, looked_at, network_of_pushed, read_pushed
from attnlab.records import code
from attnlab.records.checkpoint import inspect_checkpoint
from attnlab.records.query import find_run, read_runs
from attnlab.records.record import FINISHED

log = logging.getLogger("attnlab")


class Normalise(nn.Module):
    """Images as the network was trained on: (x - mean) / std, channel by channel.

    x: (B, C, H, W) or (C, H, W), uint8 in 0..255 or floating in [0, 1]; vectors (B, D) as they are. The result is fp32, fp64 if given so.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        x = x / 255 if not x.is_floating_point() else x.to(torch.promote_types(x.dtype, torch.float32))
        sizes = (-1, 1, 1) if x.ndim >= 3 else (-1,)
        return (x - self.mean.view(sizes)) / self.std.view(sizes)

    def extra_repr(self) -> str:
        return f"mean={self.mean.tolist()}, std={self.std.tolist()}"


class Loaded(NamedTuple):
    """network(normalise(images)) -> Output(logits, features, ...), in eval mode on the CPU. classes: names, in the order of the logits.
    shape: (C, H, W) of an image. result: what the run's result.json holds (metrics, config, versions ...)."""

    network: nn.Module
    normalise: Normalise
    classes: list[str]
    shape: tuple[int, ...]
    result: dict[str, Any]


class RecordedData:
    """What a network's making asks of a data set, from a record in the place of the images."""

    crop, flip, min_scale = 0, False, 0.0
    task = OneLabel()  # nobody asks: there are no labels

    def __init__(self, described: dict[str, Any], node: dict[str, Any]) -> None:
        self.shape, self.classes = tuple(described["shape"]), list(described["classes"])
        self.num_classes = len(self.classes)
        self.mean, self.std = tuple(described["mean"]), tuple(described["std"])
        self._num_train = int(described.get("images", {}).get("train", 1))
        self._batch_size, self._drop_last = int(node.get("batch_size", 1)), bool(node.get("drop_last", True))

    def moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        return self.mean, self.std

    def has(self, split: str) -> bool:
        return True

    def split(self, name: str) -> range:
        """As long as the images there were."""
        return range(self._num_train)

    def eval_loader(self, split: str, device: Any) -> NoReturn:
        raise ConfigError("this network's making looks at training images, and a record has none; python -m attnlab.evaluate run=RUN has")

    def steps_per_epoch(self, *, world_size: int = 1) -> int:
        return max(1, num_batches(self._num_train, self._batch_size, drop_last=self._drop_last, world_size=world_size))


def load(run: str | Path, *, outputs: str | Path = "outputs", allow_targets: Sequence[str] = ()) -> Loaded:
    """The trained network of a finished run (of averaged weights, those), how its images are normalised, and its classes.

        network, normalise, classes, *_ = load("3fa9")
        logits = network(normalise(images_BCHW)).logits

    run: its folder, its run_id, or the first digits of its address in `outputs`; a folder that `attnlab.runs push` has written; or
    `hf://OWNER/NAME`, with `@REVISION` a branch, tag or commit, which huggingface_hub, an extra, fetches.
    allow_targets: packages of others whose components the run uses; a record permits nothing by itself. In `outputs` nothing is written,
    and the random generators are left as they were.
    ValueError, one line: there is no such run, it is not finished, its weights are missing or damaged, or not those of this network; the
    hub cannot be reached, or holds something else.
    """
    where = f"load({str(run)!r})"
    if str(run).startswith(HUB):
        folder = fetched(str(run), where=where)
    else:
        folder = Path(run) if Path(run).is_dir() else find_run(str(run), read_runs(Path(outputs))).folder
    if pushed := is_pushed(folder):
        result = read_pushed(folder, where=where)
    else:
        found = read_result(folder)
        if found.status != FINISHED:
            raise ConfigError(f"{where}: is {found.status}, not finished{f' ({found.error})' if found.error else ''}")
        result = dict(found.result)
        if "members" in result or "weights" in result:
            raise ConfigError(f"{where}: holds no weights; load the runs or the file that it was made of")
    plan = plan_of_record(result, paths={"outputs": str(outputs)}, allow=allow_targets, where=where)
    if others := code.changed(result.get("code", {}), code.code_of(plan, trained=True)):
        log.warning("%s: trained by other code of %s than the present", where, ", ".join(others))
    data: Any = recorded(result, where=where)
    with _own_random_numbers():
        if pushed:
            network = network_of_pushed(plan, data, folder, where=where)
        else:
            network = network_of(plan, data, folder, (str(result.get("training")), plan.address), where=where)
    return Loaded(network.eval(), Normalise(data.mean, data.std), data.classes, data.shape, result)


def recorded(result: dict[str, Any], *, where: str) -> RecordedData:
    try:
        return RecordedData(result["data"], result["config"]["data"])
    except (KeyError, TypeError) as error:
        raise ConfigError(f"{where}: its record cannot be read ({type(error).__name__}: {error})") from error


def plan_of_record(result: dict[str, Any], *, paths: dict[str, str], allow: Sequence[str], where: str) -> Plan:
    """The plan of a record's configuration, under paths and permissions of ours: a record permits nothing."""
    try:
        return check({**result["config"], "allow_targets": list(allow), "paths": dict(paths)}, choices={}, overrides=())
    except (ValueError, KeyError, TypeError) as error:
        reason = f"{type(error).__name__}: {error}" if not isinstance(error, ConfigError) else str(error)
        raise ConfigError(f"{where}: its record cannot be read ({' '.join(reason.split())})") from error


def network_of(plan: Plan, data: Any, folder: Path, owners: Sequence[str], *, where: str) -> nn.Module:
    """The network that a run tested (an average of its weights, its best epoch), on the CPU. ConfigError: no last.ckpt, or none of it."""
    learner, path = make_learner(looked_at(plan), data, trains=False), folder / "last.ckpt"
    checkpoint, wrong = inspect_checkpoint(path, owners, learner.state_dict()) if path.exists() else ({}, "is missing")
    if wrong:
        raise ConfigError(f"{where}: its last.ckpt {wrong}")
    learner.restore(checkpoint)
    return learner.tested()


@contextlib.contextmanager
def _own_random_numbers() -> Iterator[None]:
    """A network's making seeds all generators; a caller's notebook must not notice."""
    import numpy

    python, arrays = random.getstate(), numpy.random.get_state()
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(python)
            numpy.random.set_state(arrays)
