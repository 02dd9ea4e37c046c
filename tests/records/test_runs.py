"""attnlab.runs: what is listed, compared and removed, over small records written by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from attnlab import runs
from attnlab.records.record import Record
from tests import ROOT
from tests.conftest import write_result


def write(outputs: Path, number: int, *, status: str = "finished", error: dict | None = None, **config) -> Path:
    """A small record; accuracy grows with the number."""
    address = f"{number:08x}"
    folder = outputs / "runs" / f"digits-resnet18-s{number % 5}-{address}"
    full = {
        "seed": number % 5,
        "data": {"_target_": "attnlab.data.digits.Digits", "batch_size": 128},
        "model": {"_target_": "attnlab.backbones.resnet.resnet18", "width": 16 if number % 2 else 64},
        "attention": {"rect": {"at": "layer3"}} if number % 3 == 0 else {},
        "trainer": {"max_epochs": 6},
        **config,
    }
    result = {
        "status": status,
        "run_id": folder.name,
        "config": full,
        "overrides": ["data=digits", f"seed={number % 5}"],
        "command": f"python -m attnlab.train seed={number % 5}",
        "seed": number % 5,
        "metrics": {"test/acc": 0.9 + number * 1e-5, "test/nll": 0.5 - number * 1e-5} if status == "finished" else {},
        "seconds": 60.0 + number,
        **({"epochs": 6} if status == "finished" else {}),
        "started": 1.7e9 + number,
        "versions": {"torch": "2.15.0"},
        **({"error": error} if error else {}),
    }
    Record(folder).write(result)
    return folder


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    for number in range(8):
        write(tmp_path, number)
    write(tmp_path, 8, status="failed", error={"stage": "fit", "kind": "ValueError", "message": "loss term ce became nan"})
    write(tmp_path, 9, status="running")
    (write(tmp_path, 10) / "result.json").write_text("{")
    (tmp_path / "runs" / "digits-resnet18-s0-00000000.old").mkdir()
    return tmp_path


def tell(outputs: Path, capsys: pytest.CaptureFixture, *words: str) -> list[str]:
    runs.run_command([*words, f"paths.outputs={outputs}"])
    return capsys.readouterr().out.splitlines()


def addresses(lines: list[str]) -> list[int]:
    return [int(line.split()[0].rpartition("-")[2], 16) for line in lines[1:]]


CHOICES = {
    (): [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 10],
    ("list", "limit=3"): [9, 8, 7],
    ("status=finished", "seed=1,2"): [7, 6, 2, 1],
    ("status!=finished",): [9, 8, 10],
    ("status=interrupted",): [9],
    ("test/acc>0.900045",): [7, 6, 5],
    ("test/acc<=0.900015",): [1, 0],
    ("model.width=16", "sort=test/acc"): [7, 5, 3, 1, 9],
    ("model.width=16", "sort=test/nll", "limit=2"): [7, 5],
    ("model.width=16", "sort=-test/acc", "limit=1"): [1],
    ("attention=rect",): [9, 6, 3, 0],
    ("attention=none", "seed=2"): [7, 2],
    ("model=resnet*", "seed=0"): [5, 0],
    ("model=resnet34",): [],
    ("data=digits", "run_id=*s4*"): [9, 4],
    ("attention.rect.at=layer3", "sort=seconds", "limit=1"): [9],
}


@pytest.mark.parametrize("words", CHOICES)
def test_runs_are_chosen_and_sorted(words: tuple[str, ...], outputs: Path, capsys: pytest.CaptureFixture) -> None:
    assert addresses(tell(outputs, capsys, *words)) == CHOICES[words]


def test_columns_of_what_was_asked_for(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    lines = tell(outputs, capsys, "model.width=64", "sort=test/nll", "limit=2")
    assert lines[0].split() == ["run", "status", "epochs", "time", "started", "attention", "seed", "test/acc", "model.width", "test/nll"]
    assert lines[1].split()[-3:] == ["0.9001", "64", "0.4999"] and "\x1b" not in "".join(lines)


def test_rows_of_runs_that_agree(outputs: Path, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    """Runs 0 to 7: attention=rect of 0, 3 and 6; width 16 of the odd ones."""
    lines = [line.split() for line in tell(outputs, capsys, "by=attention,model.width", "model=resnet18")]
    assert lines[0] == ["attention", "model.width", "mean", "sd", "n"] and len(lines) == 5
    assert sorted(line[:2] + line[-1:] for line in lines[1:]) == [
        ["none", "16", "3"], ["none", "64", "2"], ["rect", "16", "1"], ["rect", "64", "2"],
    ]  # fmt: skip
    best = tell(outputs, capsys, "by=model.width", "metric=test/nll")
    assert [line.split()[0] for line in best[1:]] == ["16", "64"] and best[1].split()[1] == "0.5000"
    for keys in ("attention", "attention,model.width", "model.width,attention"):
        tell(outputs, capsys, f"by={keys}", f"plot={tmp_path}/{keys}.png")
        assert (tmp_path / f"{keys}.png").stat().st_size > 5000
    runs.run_command(["by=attention", f"paths.outputs={outputs}"])
    assert "runs of a row differ in model.width: add them to by=" in capsys.readouterr().err


def test_evaluations_are_told_with_their_run(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    folder = outputs / "runs" / "digits-resnet18-s3-00000003"
    told = json.loads((folder / "result.json").read_text())
    added = {
        "overrides": [*told["overrides"], "ood=vim", "paths.outputs=here"],
        "metrics": {**told["metrics"], "ood/vim/photos/auroc": 0.75},
    }
    (folder / "evaluations" / "0123abcd").mkdir(parents=True)
    write_result(folder / "evaluations" / "0123abcd" / "result.json", {**told, **added})
    ensemble = outputs / "ensembles" / "digits-x2-00000fff"
    ensemble.mkdir(parents=True)
    write_result(ensemble / "result.json", {**told, "run_id": ensemble.name, "members": ["a", "b"]})
    lines = tell(outputs, capsys, "show", "00000003")
    assert lines[-2:] == ["  evaluation 0123abcd  finished  ood=vim", "    ood/vim/photos/auroc  0.7500"]
    assert tell(outputs, capsys, "show", "00000fff")[0] == "digits-x2-00000fff  finished"
    assert any(line.startswith("digits-x2-00000fff") for line in tell(outputs, capsys))


@pytest.mark.parametrize("word", ["{name}", "00000003", "{outputs}/runs/{name}", "{outputs}/runs/{name}/"])
def test_a_run_is_found_by_folder_name_or_address(word: str, outputs: Path, capsys: pytest.CaptureFixture) -> None:
    lines = tell(outputs, capsys, "show", word.format(outputs=outputs, name="digits-resnet18-s3-00000003"))
    assert lines[0] == "digits-resnet18-s3-00000003  finished"
    assert "  command    python -m attnlab.train seed=3" in lines and "  test/acc  0.9000" in lines


def test_an_unfinished_run_says_how_far_it_came(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    Record(outputs / "runs" / "digits-resnet18-s4-00000009").write_history([{"epoch": 1, "seconds": 2.0}, {"epoch": 2, "seconds": 2.0}])
    assert tell(outputs, capsys, "status=interrupted")[1].split()[:3] == ["digits-resnet18-s4-00000009", "interrupted", "2/6"]


def test_show_says_why_a_run_failed(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    assert "  error      loss term ce became nan" in tell(outputs, capsys, "show", "00000008")


def test_diff_shows_configuration_and_metrics(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    rows = [line.split() for line in tell(outputs, capsys, "diff", "00000006", "00000007")]
    assert ["seed", "1", "2"] in rows and ["model.width", "64", "16"] in rows and ["attention.rect.at", "layer3", "-"] in rows
    assert not any(row and row[0] == "trainer.max_epochs" for row in rows)
    assert ["test/acc", "0.9001", "0.9001", "+0.0000"] in rows


def test_prune_removes_failed_runs_and_only_when_told(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    before = sorted(outputs.rglob("*"))
    (line,) = tell(outputs, capsys, "prune")
    assert line.endswith("00000008  failed: loss term ce became nan") and sorted(outputs.rglob("*")) == before
    assert not tell(outputs, capsys, "prune", "seed=1", "yes=true") and sorted(outputs.rglob("*")) == before
    tell(outputs, capsys, "prune", "yes=true")
    assert {path.name[-1] for path in before} - {path.name[-1] for path in (outputs / "runs").glob("*-0*")} >= {"8"}
    assert len(list((outputs / "runs").glob("*-????????"))) == 10
    tell(outputs, capsys, "prune", "status=interrupted,broken", "yes=true")
    assert len(list((outputs / "runs").glob("*-????????"))) == 8


def test_a_run_at_work_is_not_pruned(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    with Record(outputs / "runs" / "digits-resnet18-s3-00000008").lock():
        assert not tell(outputs, capsys, "prune", "yes=true")
        assert addresses(tell(outputs, capsys, "status=running")) == [8]


MISTAKES = {
    ("seeds=1",): "no run has the key seeds; nearest: seed",
    ("sort=test/ac",): "no run has the key test/ac; nearest: test/acc",
    ("test/acc>high",): "test/acc>high: > needs a number",
    ("limit=all",): "limit=all: must be a whole number, 0 for all",
    ("lst",): "lst: is neither a filter (key=value) nor one of list, show, diff, push, prune",
    ("by=attention", "metric=test/ac"): "no run has the key test/ac; nearest: test/acc",
    ("by=attention", "status=failed"): "metric=test/acc: none of the 0 finished runs has it",
    ("by=seed", "plot=a.doc"): "plot=a.doc: must end in .png, .pdf or .svg",
    ("plot=a.png",): "plot=a.png: goes with by=KEY",
    ("show",): "show takes 1 run, got 0",
    ("show", "0000000"): "0000000: fits 11 runs (",
    ("diff", "00000001", "1234"): "1234: there is no such run; ",
    ("prune", "status=finished"): "status=finished: prune removes failed, interrupted, halted, broken runs and no others",
    ("prune", "yes=1"): "yes=1: must be true or false",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_are_one_line(words: tuple[str, ...], outputs: Path, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    monkeypatch.setattr(sys, "argv", ["runs", *words, f"paths.outputs={outputs}"])
    with pytest.raises(SystemExit) as stop:
        runs.main()
    said = capsys.readouterr().err
    assert stop.value.code == 1 and said.startswith(f"attnlab: {MISTAKES[words]}") and said.count("\n") == 1


def test_reading_changes_nothing(outputs: Path, capsys: pytest.CaptureFixture) -> None:
    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in outputs.rglob("*")}

    before = state()
    for words in ((), ("show", "00000008"), ("diff", "00000001", "0000000a"), ("prune",)):
        tell(outputs, capsys, *words)
    assert state() == before


def test_a_thousand_records_are_listed_in_seconds_and_without_torch(tmp_path: Path) -> None:
    folder = write(tmp_path, 0)
    text = (folder / "result.json").read_text()
    padding = json.dumps({f"parameter{number}": number for number in range(200)})
    for number in range(1, 1000):
        path = tmp_path / "runs" / f"digits-resnet18-s0-{number:08x}" / "result.json"
        path.parent.mkdir()
        own = text.replace(folder.name, path.parent.name).replace('"batch_size"', f'"more": {padding}, "batch_size"')
        write_result(path, json.loads(own))
    code = "import sys; from attnlab import runs; runs.main(); assert 'torch' not in sys.modules"
    start = os.times().children_user
    done = subprocess.run(
        [sys.executable, "-c", code, "test/acc>0.5", "sort=test/acc", f"paths.outputs={tmp_path}"], capture_output=True, text=True, cwd=ROOT
    )
    assert os.times().children_user - start < 5  # about one; not by the clock, for the sake of busy machines
    assert done.returncode == 0 and done.stderr == "1000 of 1000 runs, 980 not shown (limit=0 shows all)\n"
    assert len(done.stdout.splitlines()) == 21


def test_nothing_there_yet(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert tell(tmp_path, capsys, "test/acc>0.9", "sort=test/acc") == []


def test_help() -> None:
    done = subprocess.run([sys.executable, "-m", "attnlab.runs", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0 and "prune [key=value ...] [yes=true]" in done.stdout
