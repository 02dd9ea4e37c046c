"""Runs that need one training at the same moment: one trains, the others wait and take its network; a killed one leaves the lock."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from attnlab.records.record import Record, log
from attnlab.sweeps.cli import main
from attnlab.train import job
from attnlab.training.learner import Learner
from tests.commands import Forked
from tests.conftest import POINTS


def slow_train(outputs: Path, head: str) -> None:
    """`attnlab.train`, but training announces itself and goes on when it may."""
    step = Learner.training_step

    def training_step(self: Learner, *given: object) -> object:
        (outputs / f"{head}.trains").touch()
        while not (outputs / "go").exists():
            time.sleep(0.02)
        return step(self, *given)

    Learner.training_step = training_step
    main(job)


def until(condition: Callable[[], bool], *, seconds: float = 180.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_of_three_at_once_one_trains(tmp_path: Path) -> None:
    heads = ("msp", "energy", "none")
    processes = {}
    for head in heads:
        words = [*POINTS, f"ood={head}", f"paths.outputs={tmp_path}"]
        processes[head] = Forked(lambda head=head: slow_train(tmp_path, head), *words, output=tmp_path / f"{head}.log")
    try:
        trains = lambda: [head for head in heads if (tmp_path / f"{head}.trains").exists()]  # noqa: E731
        said = lambda head: (tmp_path / f"{head}.log").read_text()  # noqa: E731
        until(lambda: bool(trains()) and sum("trains the same network; waiting for it" in said(head) for head in heads) == 2)
        (first,) = trains()
        other = next(head for head in heads if head != first)
        assert f"process {processes[first].pid} on" in said(other) and "-s0-" in said(other).partition("trains the same")[0]
        processes[first].kill()
        until(lambda: len(trains()) == 2)
        (tmp_path / "go").touch()
        for head in heads:
            assert processes[head].wait(180) == (-9 if head == first else 0), said(head)
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    assert len(trains()) == 2
    (second,) = set(trains()) - {first}
    (third,) = set(heads) - set(trains())
    results = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/result.json")]
    by_head = {(list(result["config"]["ood"]) or ["none"])[0]: result for result in results}
    assert by_head[third]["trained_by"] == by_head[second]["run_id"] and "trained_by" not in by_head[second]
    assert by_head[third]["metrics"]["test/nll"] == by_head[second]["metrics"]["test/nll"]


def test_trainings_do_not_wait_for_other_trainings(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr(log, "propagate", True)
    one, two = (Record(tmp_path / "runs" / f"x-{address}") for address in ("00000001", "00000002"))
    with caplog.at_level("INFO", logger="attnlab"), one.lock(), two.lock(), one.training_lock("0000000a"), two.training_lock("0000000b"):
        assert one.is_locked and two.is_locked
    assert not one.is_locked and "waiting" not in caplog.text
