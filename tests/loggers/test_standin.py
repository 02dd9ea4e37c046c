"""What arrives at a server: a run that was stopped and went on, online and by `wandb sync`, is one run with all that its record holds."""

import io
import json
import math
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
from packaging.version import Version
from PIL import Image

from attnlab.config.compose import compose
from attnlab.loggers.wandb import WandbLogger
from attnlab.pipeline.mirror import about, in_turn
from attnlab.records.record import Record
from tests.conftest import TINY
from tests.loggers.standin import KEY, Run, StandIn
from tests.loggers.test_loggers import no_account  # noqa: F401  fixture: no credentials, no way out

pytestmark = pytest.mark.skipif(
    Version(version("wandb")) < Version("0.30"), reason="the stand-in speaks the protocol of wandb 0.30 and later"
)
SMALL = ["logger=wandb", "attention=rect", "evaluator=[ood,figures]", "data.val=0.2"]


def interrupted_once(run, monkeypatch, *words: str) -> dict:
    """The result of a run that is stopped after its first epoch and then goes on."""
    logged = WandbLogger.log
    with monkeypatch.context() as patch:

        def log(self, row, step):
            logged(self, row, step)
            raise KeyboardInterrupt

        patch.setattr(WandbLogger, "log", log)
        with pytest.raises(KeyboardInterrupt):
            run(*SMALL, *words)
    return run(*SMALL, *words)


def check(server: StandIn, result: dict) -> Run:
    """Every number, picture and prediction of a result is at the server, once."""
    assert list(server.runs) == [result["run_id"]]
    (found,) = server.runs.values()
    assert found.exit_code == 0 and not server.unknown
    rows = [row for row in found.history if "train/loss" in row]
    assert [row["_step"] for row in found.history] == [1, 2, 3] and [row["epoch"] for row in rows] == [1, 2]
    assert all("val/acc" in row for row in rows)
    for key, value in result["metrics"].items():
        there = found.summary[key]
        assert math.isclose(there["last"] if isinstance(there, dict) else there, value, rel_tol=1e-12), key
    for path in result["pictures"]:
        key = f"figures/{Path(path).stem}"
        assert found.files[found.summary[key]["path"]] == (result["folder"] / path).read_bytes(), key
    about = {"attention": "rect", "regularizer": "none", "loss": "ce", "data": "digits", "model": "resnet18", "model_width": 4}
    assert about.items() <= found.config.items() and found.config["config"]["model"]["width"] == 4
    assert (found.fields["jobType"], found.fields["notes"]) == ("train", result["command"])
    assert found.fields["groupName"] == "digits-resnet18-w4-rect-e2" and found.fields["tags"] == ["rect"]
    check_predictions(server.table(result["run_id"], "predictions"), result)
    return found


def check_predictions(table: dict, result: dict) -> None:
    names = ["why", "position", "image", "attention of rect@layer2", "label", "prediction", "confidence", "ood/msp"]
    assert table["columns"] == names and len(table["data"]) == 64
    with np.load(result["folder"] / "scores.npz") as stored:
        logits, labels, scores = (stored[key] for key in ("logits/test", "labels/test", "scores/msp/test"))
    exponent = np.exp(logits - logits.max(1, keepdims=True))
    confidence, guessed = (exponent / exponent.sum(1, keepdims=True)).max(1), logits.argmax(1)
    for why, position, image, under, label, prediction, sure, score in table["data"]:
        assert (label, prediction) == (str(labels[position]), str(guessed[position]))
        assert math.isclose(sure, confidence[position], rel_tol=1e-5) and math.isclose(score, scores[position], rel_tol=1e-6)
        assert why == "sample" or label != prediction
        assert Image.open(io.BytesIO(image)).size == Image.open(io.BytesIO(under)).size == (144, 144) and image != under
    positions = [row[1] for row in table["data"]]
    wrong = [position for position in np.argsort(-confidence, kind="stable") if guessed[position] != labels[position]]
    assert positions[:32] == wrong[:32] and len(set(positions)) == 64


def test_online(run, monkeypatch, tmp_path):
    with StandIn() as server:
        for name, value in server.environment().items():
            monkeypatch.setenv(name, value)
        result = interrupted_once(run, monkeypatch)
        sys.modules["wandb"].teardown()
        found = check(server, result)
        assert server.asked.count("RunResumeStatus") == 2 and found.fields["program"] == "attnlab.train"
        for secret in (os.path.realpath(sys.executable), sys.executable, KEY):
            assert secret.encode() not in server.sent


def test_sync(run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    result = interrupted_once(run, monkeypatch, "paths.outputs=outputs")
    sys.modules["wandb"].teardown()
    result["folder"] = Path(result["folder"])
    line = WandbLogger.sweep_hint([result["folder"]])
    assert line == f"wandb sync {result['folder']}/wandb" and not result["folder"].is_absolute()
    with StandIn() as server:
        environment = {**os.environ, **server.environment()}
        command = line.replace("wandb sync", f"{sys.executable} -m wandb sync")
        done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        check(server, result)
        (artifact,) = server.artifacts
        assert {Path(entry["local_path"]).parts[:2] for entry in artifact.manifest["contents"].values()} == {("outputs", "runs")}
    assert WandbLogger.sweep_hint([result["folder"]]) is None


def test_a_forced_run_is_another_one(tmp_path):
    """W&B appends to a run; what is made afresh must not be appended to what it replaces."""
    plan = compose(TINY)
    record = Record(tmp_path / "runs" / plan.run_id)
    result = {"config": plan.full, "overrides": [], "command": "python -m attnlab.train"}
    ids = []
    for _ in range(3):
        record.folder.mkdir(parents=True)
        ids.append(about(plan, record, result)["run_id"])
        record.keep_beside()
    assert ids == [plan.run_id, f"{plan.run_id}-2", f"{plan.run_id}-3"]


def test_pictures_take_turns():
    """So that a bound leaves out no kind for another."""
    kinds = {"a1.png": "attention", "a2.png": "attention", "a3.png": "attention", "c.png": "curves", "c.pdf": "curves", "s.png": "scores"}
    assert in_turn(kinds) == ["a1.png", "c.png", "s.png", "a2.png", "a3.png"]


def test_the_standin_is_heard(tmp_path):
    """What it does not know is noted, and a client that it refuses is not kept waiting."""
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    with StandIn() as server:
        body = json.dumps({"query": "query Nonsense { a }", "variables": {}}).encode()
        assert "errors" in json.loads(urlopen(Request(f"{server.address}/graphql", body)).read())
        with pytest.raises(HTTPError) as error:
            urlopen(f"{server.address}/elsewhere")
        error.value.close()
        assert error.value.code == 400 and [one.split(":")[0] for one in server.unknown] == ["Nonsense", "GET /elsewhere"]
