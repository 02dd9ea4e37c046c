"""Jobs forked from a process that has its imports: the numbers, exit codes and ends of processes that start from nothing."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from attnlab.sweeps.warm import Warm, WarmProcess
from tests.commands import command
from tests.conftest import POINTS

pytestmark = pytest.mark.long
WORDS = [*POINTS, "trainer.max_epochs=1", "ood=none", "evaluator=none", "regularizer=dropout"]


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    warm = Warm(os.environ)
    yield warm
    warm.close()


def started(warm: Warm, log: Path, *words: str) -> WarmProcess:
    with log.open("ab") as output:
        process = warm.start(words, os.environ, output.fileno())
    assert process is not None
    return process


def ended(process: WarmProcess, seconds: float = 300) -> int:
    until(lambda: process.poll() is not None, seconds)
    return process.returncode


def until(what: Callable[[], bool], seconds: float = 300) -> None:
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_same_numbers_and_ends(warm: Warm, tmp_path: Path) -> None:
    good = started(warm, tmp_path / "good.log", *WORDS, f"paths.outputs={tmp_path}/warm")
    bad = started(warm, tmp_path / "bad.log", *WORDS, "model.widht=3", f"paths.outputs={tmp_path}/bad")
    assert (ended(good), ended(bad)) == (0, 1)
    assert (tmp_path / "bad.log").read_text() == "attnlab: unknown key model.widht; nearest: model.width\n"
    assert not (tmp_path / "bad").exists()
    assert command("attnlab.train", *WORDS, f"paths.outputs={tmp_path}/cold").returncode == 0
    (one,), (two,) = tmp_path.glob("warm/runs/*-s0-*"), tmp_path.glob("cold/runs/*-s0-*")
    assert str(one / "result.json") in (tmp_path / "good.log").read_text()
    results = [json.loads((folder / "result.json").read_text()) for folder in (one, two)]
    assert results[0]["metrics"] == results[1]["metrics"] and results[0]["command"].endswith(f"paths.outputs={tmp_path}/warm")
    states = [torch.load(folder / "last.ckpt", weights_only=True)["state_dict"] for folder in (one, two)]
    assert states[0].keys() == states[1].keys() and all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_a_job_stops_by_ctrl_c_alone_and_ends_with_its_parent(warm: Warm, tmp_path: Path) -> None:
    long = [*WORDS, "trainer.max_epochs=100000", f"paths.outputs={tmp_path}"]
    first, second = (started(warm, tmp_path / f"{seed}.log", *long, f"seed={seed}") for seed in range(2))
    until(lambda: len(list(tmp_path.glob("runs/*/metrics.csv"))) == 2)
    os.killpg(first.pid, signal.SIGINT)
    assert ended(first) == 130 and "goes on from the last checkpoint" in (tmp_path / "0.log").read_text()
    assert second.poll() is None and warm.alive
    warm.process.kill()
    assert ended(second) == -signal.SIGKILL
    until(lambda: not Path(f"/proc/{second.pid}").exists())
    assert warm.start(long, os.environ, 1) is None  # the launcher then starts a process from nothing
