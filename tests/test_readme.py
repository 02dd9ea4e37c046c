"""The README's examples run as they stand."""

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import torch

from tests import ROOT
from tests.commands import command

README = (ROOT / "README.md").read_text()


def block(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", README, re.S)
    assert found, marker
    return found[1]


SMALL = "model.width=4 data.limit=64 data.batch_size=16 trainer.max_epochs=1 trainer.accelerator=cpu ood=none logger=none"


@pytest.mark.long
def test_what_a_user_adds_runs_by_the_commands_of_the_readme(tmp_path: Path) -> None:
    """One example a door, in a folder of a user's, typed as it stands there; `start=1` is given for a float."""
    files = {"mine/__init__.py": ""}
    files |= {found[2]: found[1] for found in re.finditer(r"```(?:python|yaml)\n((?:# (mine/[\w/]+\.\w+)).*?)```", README, re.S)}
    assert len(files) == 9
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    setting, *lines = block("example: commands").splitlines()
    results = []
    for line in lines:
        typed = subprocess.run(["bash", "-euc", f"{setting}\nprintf '%s\\n' {line} {SMALL}"], cwd=tmp_path, capture_output=True, text=True)
        python, option, name, *words = typed.stdout.splitlines()  # as the shell makes them of the line
        assert (python, option) == ("python", "-m"), typed.stderr
        done = command(name, *words, cwd=tmp_path, path=tmp_path)
        assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
        results += [json.loads((tmp_path / path).read_text()) for path in done.stdout.splitlines() if path.endswith(".json")]
    gate, around, explained, student = results
    assert gate["places"] == {f"gate@layer{stage}": "after" for stage in (1, 2, 3, 4)}
    assert repr(gate["config"]["attention"]["gate"]["module"]["start"]) == "1.0"
    assert 0 <= around["metrics"]["worst_class/acc"] <= around["metrics"]["test/acc"]
    assert "weight_norm" in (tmp_path / "outputs" / "runs" / around["run_id"] / "metrics.csv").read_text()
    assert explained["pictures"]["figures/explanations.png"] == "explanation"
    assert student["metrics"]["train/loss/same_logits"] > 0


def test_the_own_model_of_the_readme_runs() -> None:
    names: dict = {}
    exec(compile(block("example: own"), "own.py", "exec"), names)
    model = names["model"].eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 224, 224)).shape == (1, 1000)
    assert [name for name in model.state_dict() if name.startswith("placed.rect@layer3")]


def test_the_head_of_the_readme_runs(capsys: pytest.CaptureFixture) -> None:
    exec(compile(block("example: head"), "head.py", "exec"), {})
    assert 0.9 <= float(capsys.readouterr().out) <= 1


@pytest.mark.parametrize("line", [line for line in README.replace("\\\n", "").splitlines() if line.startswith("python -m attnlab.train ")])
def test_the_commands_of_the_readme_compose(line: str) -> None:
    from attnlab.config.compose import compose

    words = shlex.split(line, comments=True)[3:]
    if {"--help", "...", "-m", "places"} & set(words) or any("mine" in word or "MINE" in word for word in words):
        return
    assert compose([word.replace("teacher=outputs/runs/NAME", "teacher=training:3fa9c1d2") for word in words if word != "..."]).address
