"""SIGKILL or SIGTERM at any moment, the same command again: on the CPU the end is bit for bit that of a run never stopped."""

import json
import logging
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from attnlab.config.compose import compose
from attnlab.config.plan import Plan
from attnlab.pipeline.train import train
from attnlab.training.epoch import Batch, EpochSums
from attnlab.training.learner import Learner
from tests.commands import Forked

HARD = [
    "logger=none",
    "trainer.accelerator=cpu",
    "trainer.threads=1",
    "trainer.checkpoint_seconds=0",
    "trainer.progress=false",
    "data.limit=128",
    "data.batch_size=16",
    "data.val=0.2",
    "model=cnn3",
    "model.width=4",
    "model.bottleneck=6",
    "loss=large_margin",  # carries moving class means
    "optimizer.lr=0.01",
    "regularizer=[cutout,maxdropout,dropout]",
    "attention=rect",
    "callback=[ema,swa]",
    "callback.swa.start=0.25",
    "algorithm=sam",
    "ood=[msp,knn]",
    "trainer.max_epochs=4",
]
STEPS = 6  # of 16 images in an epoch of 102


def live(folder: Path, deaths: list, overrides: list[str] = HARD) -> dict:
    """Every life of the run is a fork: killed or told to end at a step, or when a checkpoint is written and not yet renamed; the last one
    ends."""
    plan = compose([*overrides, f"paths.outputs={folder}"])
    for kind, when in [*deaths, (None, None)]:
        life = Forked(lambda kind=kind, when=when: killed_train(plan, kind, when))
        said = life.communicate(400)[1]
        assert life.returncode == {None: 0, "term": 1}.get(kind, -signal.SIGKILL), (kind, when, said[-3000:])
    (result,) = folder.glob("runs/*/result.json")
    return {
        "result": json.loads(result.read_text()),
        "ckpt": torch.load(result.parent / "last.ckpt", weights_only=True),
        "log": (result.parent / "train.log").read_text(),
    }


def killed_train(plan: Plan, kind: str | None, when: int | None) -> None:
    step, replace = Learner.step, os.replace

    def stepping(self: Learner, batch: Batch, totals: EpochSums, **options: object) -> object:
        if kind == "step" and totals.steps == when:
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "term" and totals.steps == when:
            os.kill(os.getpid(), signal.SIGTERM)
        return step(self, batch, totals, **options)

    def replacing(source: Path, target: Path) -> None:
        if kind == "save" and Path(target).name == "last.ckpt":
            os.kill(os.getpid(), signal.SIGKILL)  # the temporary file is written, the name not yet changed
        replace(source, target)

    Learner.step, os.replace = stepping, replacing
    train(plan)


def plain(history: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in ("seconds", "images_per_second")} for row in history]


def equal(one: object, two: object) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.dtype == two.dtype and torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(two) and all(map(equal, one, two))
    return one == two


@pytest.mark.long
def test_killed_runs_end_as_the_run_that_was_not(tmp_path: Path) -> None:
    whole = live(tmp_path / "whole", [])
    generator = torch.Generator().manual_seed(2026)
    middle = int(torch.randint(STEPS + 1, 3 * STEPS - 1, (), generator=generator))
    deaths = [("step", 2), ("step", middle), ("term", 3 * STEPS - 4), ("save", 0), ("step", 4 * STEPS - 1)]
    torn = live(tmp_path / "torn", deaths)

    assert torn["result"]["metrics"] == whole["result"]["metrics"]
    assert torn["result"]["status"] == "finished" and torn["result"]["epochs"] == 4
    assert plain(torn["ckpt"]["attnlab"]["history"]) == plain(whole["ckpt"]["attnlab"]["history"])
    for part in ("state_dict", "optimizer_states"):
        assert equal(torn["ckpt"][part], whole["ckpt"][part]), part
    assert equal(torn["ckpt"]["attnlab"]["states"], whole["ckpt"]["attnlab"]["states"])
    assert "loss.means" in torn["ckpt"]["state_dict"] and {"callback.ema", "callback.swa"} <= whole["ckpt"]["attnlab"]["states"].keys()
    assert "going on after epoch" in torn["log"]
    assert not list((tmp_path / "torn").glob("runs/*/.*.tmp"))


def test_a_run_is_a_function_of_its_config(run, tmp_path: Path) -> None:
    one = run("regularizer=[cutout,mixup]", "trainer.threads=1")
    two = run("regularizer=[cutout,mixup]", "trainer.threads=1", f"paths.outputs={tmp_path}/again")
    three = run("regularizer=[cutout,mixup]", "trainer.threads=1", "seed=1")
    assert one["metrics"] == two["metrics"] and one["run_id"] == two["run_id"]
    assert one["metrics"] != three["metrics"]


def test_a_finished_run_repeated_changes_nothing(run, capsys: pytest.CaptureFixture) -> None:
    first = run()
    path = first["folder"] / "result.json"
    before = {file: file.stat().st_mtime_ns for file in first["folder"].rglob("*")}
    capsys.readouterr()
    second = run()
    assert capsys.readouterr().out.strip().splitlines()[-1] == str(path)
    assert second["metrics"] == first["metrics"]
    assert {file: file.stat().st_mtime_ns for file in first["folder"].rglob("*")} == before


def test_force_keeps_the_old_record_beside(run) -> None:
    first = run()
    second = run("force=true")
    old = first["folder"].with_name(first["folder"].name + ".old")
    assert json.loads((old / "result.json").read_text())["started"] == first["started"]
    assert second["started"] > first["started"] and second["metrics"] == first["metrics"]
    assert run()["started"] == second["started"]


def test_a_stage_that_fails_loses_nothing_and_the_repeat_does_not_train_again(run, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnlab.evaluation.ood import OOD
    from attnlab.training.learner import Learner

    def run_none(self: OOD, trained: object) -> None:
        raise RuntimeError("no head today")

    monkeypatch.setattr(OOD, "run", run_none)
    with pytest.raises(RuntimeError, match="no head today; traceback in"):
        run()
    monkeypatch.undo()
    monkeypatch.setattr(Learner, "training_step", lambda *args: pytest.fail("trained again"))
    result = run()
    assert result["status"] == "finished" and "error" not in result
    assert "ood/msp/photos/auroc" in result["metrics"]


def test_results_before_a_failing_stage_are_in_the_record(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from attnlab.evaluation.ood import OOD

    def run_none(self: OOD, trained: object) -> None:
        raise RuntimeError("no head today")

    monkeypatch.setattr(OOD, "run", run_none)
    with pytest.raises(RuntimeError):
        run("attention=rect", "evaluator=[ood,localisation,figures]")
    (path,) = tmp_path.glob("outputs/runs/*/result.json")
    result = json.loads(path.read_text())
    assert result["status"] == "failed" and result["error"] == {"stage": "ood", "kind": "RuntimeError", "message": "no head today"}
    assert "test/acc" in result["metrics"] and (path.parent / "figures" / "curves.png").exists()
    assert "Traceback" in (path.parent / "train.log").read_text()


def test_a_second_process_says_whom_it_waits_for(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnlab.records.record import Record, log

    monkeypatch.setattr(log, "propagate", True)
    folder, told = tmp_path / "runs" / "x-0a1b2c3d", tmp_path / "told"

    def hold() -> None:
        with Record(folder).lock():
            print("locked", flush=True)
            while not told.exists():
                time.sleep(0.01)

    class Tell(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.touch()

    other = Forked(hold)
    while "locked" not in other.read()[0]:
        assert other.poll() is None
        time.sleep(0.01)
    monkeypatch.setattr(log, "handlers", [Tell()])
    with caplog.at_level("INFO", logger="attnlab"), Record(folder).lock():
        assert other.wait(5) == 0
    assert f"process {other.pid} on" in caplog.text and "works on this run; waiting" in caplog.text
    other.communicate()
