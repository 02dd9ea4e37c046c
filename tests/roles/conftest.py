"""The commands of the README as written, in this process and an empty folder; `small` words make a run quick and change nothing else."""

import importlib
import re
import shlex
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import ROOT

README = (ROOT / "README.md").read_text()
SMALL = ["model.width=4", "data.limit=64", "data.batch_size=16", "trainer.max_epochs=1", "trainer.accelerator=cpu", "logger=none"]
SMALL += ["ood=none", "evaluator=none"]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].values()
FUNCTIONS = dict(target.split(":") for target in SCRIPTS)  # of each command's module


def block(marker: str) -> str:
    """The fenced block behind a marker."""
    found = re.search(rf"<!-- {re.escape(marker)} -->\n```\w+\n(.*?)```", README, re.S)
    assert found, marker
    return found[1]


def line(beginning: str) -> str:
    """The one line of the README that begins so, without its comment."""
    found = [one for one in README.replace("\\\n", "").splitlines() if one.startswith(beginning)]
    assert found, beginning
    return shlex.join(shlex.split(found[0], comments=True))


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., tuple[list[str], str]]:
    """`command(line, *small)` runs `python -m MODULE WORDS` and gives its lines on stdout and what it said on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.setattr("attnlab.sweeps.cli.die_with_parent", lambda: None)  # it would be pytest that dies

    def run(text: str, *small: str) -> tuple[list[str], str]:
        python, _, module, *words = shlex.split(text)
        assert python == "python"
        monkeypatch.setattr(sys, "argv", [module, *words, *small])
        capsys.readouterr()
        code: object = 0
        try:
            getattr(importlib.import_module(module), FUNCTIONS[module])()
        except SystemExit as stop:
            code = stop.code
        told = capsys.readouterr()
        assert not code, told.err
        return told.out.splitlines(), told.err

    return run
