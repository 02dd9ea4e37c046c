"""The README's examples run as they stand."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests import ROOT

README = (ROOT / "README.md").read_text()


def block(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", README, re.S)
    assert found, marker
    return found[1]


def test_the_component_of_the_readme_trains_by_its_command(tmp_path: Path) -> None:
    """In a folder of a user's, with the package beside it; `start=1` is a whole number where the class asks for a float."""
    files = {"__init__.py": "", "gate.py": block("example: component"), "conf/attention/gate.yaml": block("example: yaml")}
    for name, text in files.items():
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (line,) = (line for line in README.splitlines() if "attention.gate.start=1" in line)
    small = [
        "model.width=4",
        "data.limit=64",
        "data.batch_size=16",
        "trainer.max_epochs=1",
        "trainer.accelerator=cpu",
        "ood=none",
        "logger=none",
    ]
    command = [sys.executable, *shlex.split(line)[1:], *small]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / done.stdout.splitlines()[-1]).read_text())
    assert result["places"] == {f"gate@layer{stage}": "after" for stage in (1, 2, 3, 4)}
    assert repr(result["config"]["attention"]["gate"]["module"]["start"]) == "1.0"


def test_the_own_model_of_the_readme_runs() -> None:
    names: dict = {}
    exec(compile(block("example: own"), "own.py", "exec"), names)
    model = names["model"].eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 224, 224)).shape == (1, 1000)
    assert [name for name in model.state_dict() if name.startswith("placed.rect@layer3")]


@pytest.mark.parametrize("line", [line for line in README.replace("\\\n", "").splitlines() if line.startswith("python -m attnlab.train ")])
def test_the_commands_of_the_readme_compose(line: str) -> None:
    from attnlab.config.compose import compose

    words = shlex.split(line, comments=True)[3:]
    if {"--help", "...", "-m"} & set(words) or any("mine" in word for word in words):
        return
    assert compose([word.replace("teacher=outputs/runs/NAME", "teacher=training:3fa9c1d2") for word in words if word != "..."]).address
