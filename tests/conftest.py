"""What the tests share: one thread (small work, and forks stay safe), no W&B, and a quick plan."""

import gc
import logging
import os
import random
import signal
import zlib

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job has it so, and all that it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["WANDB_MODE"] = "offline"

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

QUICK = ["logger=none", "data.batch_size=16", "trainer.max_epochs=2", "ood=msp", "evaluator=[ood,localisation]"]  # no pictures
TINY = [*QUICK, "data.limit=64", "model.width=4", "trainer.accelerator=cpu"]
POINTS = [*QUICK, "data=two_moons", "model=mlp2d", "data.num_train=64"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test marked slow or slurm runs where -m names its marker. Those marked long begin, lest a worker be left with one at the end."""
    unnamed = {"slow", "slurm"} - set(config.getoption("-m").split())
    left_out = [item for item in items if unnamed & {marker.name for marker in item.iter_markers()}]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a tenth of the time is waiting for processes that tests start."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What collecting imports stays to the end: the garbage collector never looks through it, and is called more rarely."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        gc.enable()


def pytest_collection_finish() -> None:
    """The process's first backward pass, while there is no device but the CPU: once tracing (torch.compile, torch.export) has pretended a
    GPU, it would start a thread for it, and nothing that a test forks could train."""
    import torch

    torch.ones((), requires_grad=True).backward()


def seed_by(name: str) -> None:
    """The global generators, by a name: what a test draws is its own, whatever ran before it and in whichever worker."""
    import torch

    number = zlib.crc32(name.encode())
    random.seed(number)
    np.random.seed(number)
    torch.default_generator.manual_seed(number)  # torch.manual_seed writes a stack for a GPU that may come: a millisecond


def pytest_pycollect_makemodule(module_path: Path) -> None:
    seed_by(module_path.name)


def pytest_fixture_setup(fixturedef: pytest.FixtureDef, request: pytest.FixtureRequest) -> None:
    seed_by(f"{fixturedef.argname} {getattr(request, 'param', '')}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    seed_by(item.nodeid)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_the_disk() -> Iterator[None]:
    """Files of tests need not outlast a power cut, and a run writes fifteen: milliseconds each in which nothing is done."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True)
def _own_logger() -> Iterator[None]:
    """A command run in this process gives our logger a handler; the next test finds it as it was."""
    log = logging.getLogger("attnlab")
    handlers, propagate, level = list(log.handlers), log.propagate, log.level
    yield
    log.handlers[:], log.propagate = handlers, propagate
    log.setLevel(level)


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., dict]:
    """`run("seed=1", base=TINY)` runs (or finds) a plan in this test's own outputs and returns its result.json."""
    import json

    from attnlab.config.compose import compose
    from attnlab.config.plan import outputs
    from attnlab.pipeline.train import train
    from attnlab.records.record import Record

    def go(*overrides: str, base: list[str] = TINY) -> dict:
        plan = compose([*base, f"paths.outputs={tmp_path}/outputs", *overrides])
        train(plan)
        record = Record.find(outputs(plan), plan.address, plan.label)
        return {**json.loads(record.result_path.read_text()), "folder": record.folder, "plan": plan}

    go.outputs = tmp_path / "outputs"
    return go


def write_result(path: Path, result: dict) -> None:
    """A result.json as a run writes it, with its digest."""
    import json

    from attnlab.config.result import sealed

    path.write_text(json.dumps(sealed(result)))
