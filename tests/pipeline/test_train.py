"""Whole runs: what they leave behind, sweeps, evaluation afterwards, W&B, two processes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from attnlab.config.compose import compose
from attnlab.evaluate import evaluate
from attnlab.pipeline.train import train
from tests.commands import command, start
from tests.conftest import POINTS
from tests.sweeps.test_launcher import processes_of

IDENTITY = ["status", "run_id", "config", "overrides", "command", "seed", "versions", "git", "device", "precision", "data"]
FIELDS = [*IDENTITY, "metrics", "places", "parameters", "images_per_second", "seconds", "epochs"]


def cli(*words: str, module: str = "attnlab.train") -> subprocess.CompletedProcess:
    return command(module, *words)


def test_the_record_of_a_run(run) -> None:
    result = run(
        "attention=rect",
        "data=cluttered_digits",
        "data.num_train=64",
        "data.num_test=40",
        "data.limit=null",
        "ood=[msp,knn]",
        "data.val=0.2",
        "evaluator=[ood,localisation,figures]",
    )
    assert [field for field in FIELDS if field not in result] == []
    assert result["status"] == "finished" and result["epochs"] == 2 and result["seed"] == 0
    assert result["places"] == {"rect@layer2": "after"}
    metrics = result["metrics"]
    for key in ("test/acc", "test/nll", "test/ece", "test/brier", "val/acc", "train/loss/ce"):
        assert key in metrics, key
    for name in ("auroc", "aupr_in", "aupr_out", "fpr95", "fpr95_id"):
        assert f"ood/knn/{result['config']['data']['ood'][0]}/{name}" in metrics
    for name in ("rect_iou", "map_iou", "pointing", "energy", "centred_iou"):
        assert 0 <= metrics[f"loc/rect@layer2/{name}"] <= 1
    folder = result["folder"]
    figures = {path.name for path in (folder / "figures").iterdir()}
    assert figures == {"curves.png", "ood_scores.png", "consistency.png", "reliability.png", "attention_rect_at_layer2.png"}
    rows = (folder / "metrics.csv").read_text().splitlines()
    assert rows[0].startswith("epoch,train/loss") and len(rows) == 3
    assert result["data"]["images"]["test"] == 40 and len(result["data"]["digests"]["test"]) == 16
    assert "epoch 2/2" in (folder / "train.log").read_text()


def test_the_objective_is_returned(tmp_path: Path) -> None:
    words = [*POINTS, f"paths.outputs={tmp_path}", "objective=test/nll"]
    value = train(compose(words))
    (path,) = tmp_path.glob("runs/*/result.json")
    assert value == json.loads(path.read_text())["metrics"]["test/nll"] == train(compose(words))


def test_a_sweep_writes_addressed_runs_and_its_repeat_does_nothing(tmp_path: Path) -> None:
    words = ["-m", *POINTS, "trainer.max_epochs=1", "seed=0,1,2", "regularizer=none,dropout", "regularizer.dropout.module.p=0.1"]
    words = [word for word in words if not word.startswith("regularizer.")] + [f"paths.outputs={tmp_path}"]
    first = cli(*words)
    assert first.returncode == 0, first.stderr
    paths = sorted(tmp_path.glob("runs/*/result.json"))
    assert len(paths) == 6
    assert [line for line in first.stdout.splitlines() if line.endswith("result.json")].__len__() == 6
    times = [path.stat().st_mtime_ns for path in paths]
    second = cli(*words)
    assert second.stderr.count("finished before; nothing to do") == 6
    assert [path.stat().st_mtime_ns for path in paths] == times


def test_runs_that_differ_in_ood_heads_or_sets_alone_train_once(tmp_path: Path) -> None:
    def result_of(outputs: str, *words: str) -> dict:
        plan = compose([*POINTS, "trainer.max_epochs=2", "loss=large_margin", f"paths.outputs={tmp_path / outputs}", *words])
        train(plan)
        folder = tmp_path / outputs / "runs" / plan.run_id
        return json.loads((folder / "result.json").read_text()) | {"log": (folder / "train.log").read_text(), "folder": folder}

    first, other = ("ood=[msp]",), ("ood=[msp,knn]", "ood.knn.k=5")
    made = result_of("a", *first)
    assert "trained_by" not in made and "epoch 2/2" in made["log"]
    taken, afresh = result_of("a", *other), result_of("b", *other)
    assert taken["trained_by"] == made["run_id"] and f"the network is that of {made['run_id']}" in taken["log"]
    assert "epoch 2/2" not in taken["log"] and "epoch 2/2" in afresh["log"]
    timeless = [one["metrics"] for one in (taken, afresh)]
    assert timeless[0] == timeless[1] and not [key for key in made["metrics"] if key.startswith("ood/knn/")]
    assert taken["epochs"] == 2 and taken["training"] == made["training"]
    assert (taken["folder"] / "metrics.csv").read_text() == (made["folder"] / "metrics.csv").read_text()

    with pytest.raises(ValueError, match=f"has the network of {made['run_id']}"):
        evaluate([made["folder"], taken["folder"]], [])

    # a third is told who trained, not who has a copy; force trains, and is told from then on
    assert result_of("a", "ood=[energy]")["trained_by"] == made["run_id"]
    forced = result_of("a", *other, "force=true")
    assert "trained_by" not in forced and forced["metrics"] == taken["metrics"]

    # what cannot be relied on is not taken, nor touched
    (forced["folder"] / "last.ckpt").write_bytes(b"no checkpoint")
    assert "trained_by" not in result_of("a", "ood=none")
    assert (forced["folder"] / "last.ckpt").read_bytes() == b"no checkpoint"
    assert compose([*POINTS, "seed=1"]).training != compose(POINTS).training == compose([*POINTS, "ood=knn", "logger=csv"]).training


def test_evaluate_scores_other_heads_and_leaves_the_record_alone(run) -> None:
    result = run("model.bottleneck=5")
    before = (result["folder"] / "result.json").read_bytes()
    path = evaluate([result["folder"]], ["ood=[knn,mahalanobis]", "ood.knn.k=5"])
    found = json.loads(path.read_text())
    assert path.parent.parent == result["folder"] / "evaluations" and found["status"] == "finished"
    assert found["metrics"]["test/acc"] == result["metrics"]["test/acc"]
    assert {key.split("/")[1] for key in found["metrics"] if key.startswith("ood/")} == {"knn", "mahalanobis"}
    assert (result["folder"] / "result.json").read_bytes() == before


EVALUATE_MISTAKES = {
    ("run=/no/such/run",): "there is no such folder",
    ("run={folder}", "model.width=8"): "model is the run's own and cannot be changed here",
    ("run={folder}", "ood=knm"): "there is no such ood; nearest: knn",
    ("run={folder}", "data=two_moons"): "choose data of the same shape and classes",
    ("ood=knn",): "give one run=RUN",
}


def test_mistakes_at_evaluation_are_one_line(run, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnlab import evaluate

    folder = str(run()["folder"])
    for words, message in EVALUATE_MISTAKES.items():
        monkeypatch.setattr(sys, "argv", ["evaluate", *(word.format(folder=folder) for word in words)])
        with pytest.raises(SystemExit) as stop:
            evaluate.main()
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert stop.value.code == 1 and message in said, said


def test_wandb_offline_holds_the_run(run) -> None:
    """Reads the offline file back: config, a row an epoch, the summary, a picture, group and tags."""
    import wandb

    from tests.loggers.wandb_file import OfflineFile

    result = run("logger=wandb", "attention=se", "evaluator=figures")
    wandb.teardown()
    (path,) = result["folder"].glob("wandb/offline-run-*/*.wandb")
    told = OfflineFile(path)
    assert result["run_id"] in path.name and told.exit_code == 0
    rows = [told.history[step] for step in sorted(told.history) if "train/loss" in told.history[step]]
    assert len(rows) == 2 and rows[-1]["train/loss"] == pytest.approx(result["metrics"]["train/loss"])
    assert told.summary["test/acc"] == pytest.approx(result["metrics"]["test/acc"])
    assert told.run.run_group == "digits-resnet18-w4-se-e2" and list(told.run.tags) == ["se"]
    assert told.config["model"] == "resnet18" and told.config["config"]["model"]["width"] == told.config["model_width"] == 4
    assert list(path.parent.glob("files/media/images/figures/curves*.png"))


def test_sigterm_after_training_interrupts_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any moment, and not only in a step; the same command goes on after the training."""
    plan = compose([*POINTS, f"paths.outputs={tmp_path}"])
    before = signal.getsignal(signal.SIGTERM)

    def told(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        pytest.fail("nothing was interrupted")

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("attnlab.pipeline.train.run_evaluators", told)
        train(plan)
    (path,) = tmp_path.glob("runs/*/result.json")
    assert json.loads(path.read_text())["status"] == "interrupted" and signal.getsignal(signal.SIGTERM) == before
    written = path.with_name("last.ckpt").stat().st_mtime_ns
    train(plan)
    assert json.loads(path.read_text())["status"] == "finished" and path.with_name("last.ckpt").stat().st_mtime_ns == written


def interrupted(words: list[str], outputs: Path, tell: Callable[[int], None]) -> None:
    """A life of a run of two processes that is told to end after an epoch of its own, and leaves nothing but its record."""

    def saved() -> list[int]:
        return [path.stat().st_mtime_ns for path in outputs.glob("runs/*/last.ckpt")]

    before, first = saved(), start("attnlab.train", *words, session=True)
    try:
        while saved() == before:
            assert first.poll() is None, first.read()[1]
            time.sleep(0.01)
        tell(first.pid)
        first.wait(60)
        end = time.monotonic() + 20
        while left := processes_of(outputs):
            assert time.monotonic() < end, left
            time.sleep(0.05)
    finally:
        ended = first.end()
    assert ended.code == 130 and not ended.traceback, ended.err
    assert ended.err.count("attnlab: interrupted; the same command goes on") == 1, ended.err
    (path,) = outputs.glob("runs/*/result.json")
    assert json.loads(path.read_text())["status"] == "interrupted"


def test_two_processes_train_one_run(run, tmp_path: Path) -> None:
    """trainer=ddp over gloo: gradients averaged over both halves of every batch, one record, as accurate as one process; told to end, both
    end at once, and the same command goes on."""
    base = [
        "logger=none",
        "model.width=8",
        "attention=rect",
        "ood=none",
        "evaluator=none",
        "trainer.max_epochs=8",
        "trainer.accelerator=cpu",
    ]
    words = [*base, "trainer=ddp", "data.batch_size=32", "trainer.checkpoint_seconds=0", f"paths.outputs={tmp_path}/ddp"]
    for tell, number in ((os.kill, signal.SIGTERM), (os.killpg, signal.SIGINT)):  # one of them is told, or as in a terminal both
        interrupted(words, tmp_path / "ddp", lambda pid, tell=tell, number=number: tell(pid, number))

    done = cli(*words)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("going on after epoch") == 1 and done.stderr.count("epoch 8/8") == 1
    (path,) = tmp_path.glob("ddp/runs/*/result.json")
    result = json.loads(path.read_text())
    assert result["status"] == "finished" and result["epochs"] == 8
    assert done.stdout.count("result.json") == 1
    state = torch.load(path.parent / "last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in state.values() if value.is_floating_point())
    alone = run("data.batch_size=64", base=base)
    assert alone["metrics"]["test/acc"] > 0.85
    assert abs(result["metrics"]["test/acc"] - alone["metrics"]["test/acc"]) < 0.08


def test_the_recorded_command_makes_the_same_run(tmp_path: Path) -> None:
    """Also of an experiment, with the + that it once needed."""
    small = [
        "model.width=4",
        "trainer.max_epochs=1",
        "data.limit=64",
        "data.batch_size=32",
        "logger=none",
        "evaluator=none",
        f"paths.outputs={tmp_path}",
    ]
    done = cli("+experiment=maxdropout/resnet18", "data=digits", *small)
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.splitlines()[-1])
    command = json.loads(path.read_text())["command"]
    assert command.startswith("python -m attnlab.train experiment=maxdropout/resnet18 data=digits model.width=4")
    again = cli(*command.split()[3:])
    assert again.returncode == 0 and "finished before" in again.stderr


def test_what_a_placed_module_wants_logged_is_logged(run) -> None:
    """MaxDropout's dropped fraction, a mean over the epoch's batches, for each of its places."""
    metrics = run("regularizer=maxdropout")["metrics"]
    found = {key: value for key, value in metrics.items() if key.endswith("/dropped")}
    assert list(found) == [f"train/maxdropout@layer{stage}/dropped" for stage in (1, 2, 3, 4)]
    assert all(0 < value < 0.5 for value in found.values())
