"""A W&B reader: a sweep is sent by the line of the README, and found again by what was swept, with its pictures and predictions."""

import json
import os
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import ROOT
from tests.loggers.standin import StandIn
from tests.loggers.test_loggers import no_account  # noqa: F401  fixture: no credentials, no way out
from tests.roles.conftest import SMALL, block

Command = Callable[..., tuple[list[str], str]]


def test_a_sweep_is_reviewed(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    sweep, sync, workspace = block("role: wandb reader").splitlines()
    out, said = command(sweep.replace("seed=0,1", "seed=0"), *[word for word in SMALL if word != "logger=none"])
    sys.modules["wandb"].teardown()
    told = [one for one in said.splitlines() if "wandb sync" in one]
    assert told == [sync]  # one line a sweep, and the one of the README
    with StandIn() as server:
        environment = {**os.environ, **server.environment()}
        words = sync.replace("wandb", f"{sys.executable} -m wandb", 1)
        done = subprocess.run(words, shell=True, env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    results = [json.loads(Path(path).read_text()) for path in out]
    assert {run.config["attention"] for run in server.runs.values()} == {"none", "rect"}
    monkeypatch.setattr(sys, "argv", shlex.split(workspace)[1:])
    capsys.readouterr()
    runpy.run_path(str(ROOT / sys.argv[0]), run_name="__main__")
    plan = json.loads(capsys.readouterr().out)["workspace"]
    assert plan["group_by"] == ["attention", "seed"] and plan["project"] == "mine"
    for result in results:
        run = server.runs[result["run_id"]]
        assert set(plan["group_by"]) <= set(run.config) and run.fields["project"] == plan["project"] and run.fields["jobType"] == "train"
        assert run.summary["test/acc"] == pytest.approx(result["metrics"]["test/acc"]) and "val/acc" not in run.summary
        assert len(server.table(result["run_id"], "predictions")["data"]) == 64
