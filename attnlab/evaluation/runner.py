"""Runner: the evaluators one after another on a trained network, each isolated, each result kept at once."""

import contextlib
import functools
import logging
import re
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from attnlab.evaluation.classification import Classification
from attnlab.evaluation.partial import PartialFile
from attnlab.evaluation.scores import FILE, ScoresFile, origin_of
from attnlab.evaluation.trained import TEST, Incomplete, Trained
from attnlab.records.plausible import warnings_of
from attnlab.records.record import FINISHED

log = logging.getLogger("attnlab")


class Evaluator(Protocol):
    def run(self, trained: Trained) -> dict[str, float]: ...


class ResultWriter:
    """A result in the making: `stage` runs a step under a name, times it and saves; `note` keeps the first error."""

    def __init__(self, result: dict[str, Any], save: Callable[[dict[str, Any]], None]) -> None:
        self.result = result
        self.save_result = save

    def stage(self, name: str, step: Callable[[], None]) -> None:
        self.result["stage"] = name
        start = time.monotonic()
        step()
        self.result["stage_seconds"][name] = round(time.monotonic() - start, 3)
        self.save()

    def save(self) -> None:
        self.save_result(self.result)

    def finish(self) -> None:
        self.result |= {"status": FINISHED, "stage": "done", "finished": time.time()}

    def note(self, error: BaseException) -> None:
        """The record says what failed first; train.log says where."""
        if "error" in self.result:
            return
        text = " ".join(str(error).split()) or type(error).__name__
        self.result["error"] = {"stage": self.result["stage"], "kind": type(error).__name__, "message": text}
        log.debug("%s", "".join(traceback.format_exception(error)))


def run_evaluators(trained: Trained, evaluators: Mapping[str, Evaluator], writer: ResultWriter) -> None:
    """Test, then every evaluator in order: metrics and `pictures` into `writer.result`, logits and scores into scores.npz.

    An evaluator that fails costs its own metrics (of `Incomplete`, those it did not find) and is noted; the others go on, and the first
    error is raised at the end. An evaluator that changed the network's weights or buffers has failed, and they are put back. Each draws
    its random numbers from the run's seed, whatever ran before. What one has kept of its work (`Trained.keep`) goes when it ends.
    `writer.result` holds `data`, what `ImageData.describe` says; numbers that are no result are named in its `warnings`
    (attnlab.records.plausible).
    """
    result, failures = writer.result, []
    trained.metrics = result["metrics"]
    file = ScoresFile(trained.folder / FILE)
    asked = [(TEST, Classification()), *evaluators.items()]
    for number, (name, evaluator) in enumerate(asked, 1):
        log.info("evaluating, %d of %d: %s", number, len(asked), name)
        origin = functools.partial(origin_of, trained, result["data"])
        file_name = re.sub(r"[^\w-]", ".", str(name))  # an evaluator of somebody else may be called as it likes
        partial = trained.partial = PartialFile(trained.folder / f"partial-{file_name}.ckpt", origin, trained.settings.device)
        try:
            writer.stage(name, functools.partial(_run, evaluator, name, trained, result, file))
        except Exception as error:
            failures.append(error)
            writer.note(error)
        partial.remove()
    if failures:
        raise failures[0]
    counts = torch.bincount(trained.logits(TEST)[1].flatten(), minlength=trained.data.num_classes)
    if warnings := warnings_of(result["metrics"], trained.history, counts.tolist()):
        result["warnings"] = [*result.get("warnings", []), *warnings]


def _run(evaluator: Evaluator, name: str, trained: Trained, result: dict[str, Any], file: ScoresFile) -> None:
    with unchanged(trained.network), seeded(trained.seed, trained.settings.device):
        try:
            found, failed = evaluator.run(trained), None
        except Incomplete as error:
            found, failed = error.metrics, error
        result["pictures"] = trained.drawn()
        if trained.timings:
            result["timings"] = dict(trained.timings)
        merge(result["metrics"], found, name)
        file.keep(trained, result["data"])
        if failed:
            raise failed


def merge(metrics: dict[str, float], found: Any, name: str) -> None:
    """Add what an evaluator found. ValueError: no mapping of numbers, or a metric that is known already."""
    if not isinstance(found, Mapping) or not all(isinstance(value, int | float) for value in found.values()):
        raise ValueError(f"evaluator.{name}: run must return a mapping of metrics to numbers, got {found!r:.120}")
    if known := sorted(set(found) & set(metrics)):
        raise ValueError(f"evaluator.{name}: gives {known[0]}, which is known already; choose names of its own")
    metrics |= found


@contextlib.contextmanager
def unchanged(network: nn.Module) -> Iterator[None]:
    """Puts the weights, buffers, modes and requires_grad of `network` back as they were. ValueError: weights or buffers had been changed.

    Values are compared: PyTorch's version counters do not see what BatchNorm in training mode does to its statistics.
    """
    network.eval()
    asked = {parameter: parameter.requires_grad for parameter in network.parameters()}
    tensors = [*network.parameters(), *network.buffers()]
    before = [(tensor, tensor.detach().clone()) for tensor in tensors]
    try:
        yield
    finally:
        network.eval()
        for parameter, wanted in asked.items():
            parameter.requires_grad_(wanted)
        with torch.no_grad():
            changed = [(tensor, value) for tensor, value in before if not _same(tensor, value)]
            for tensor, value in changed:
                tensor.copy_(value)
    if changed:
        raise ValueError(f"changed {len(changed)} of the network's {len(tensors)} weights and buffers; they were put back")


def _same(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) or bool(((one == other) | (one.isnan() & other.isnan())).all())


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """PyTorch's generators from `seed` on, and as they were afterwards."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield
