"""Completion in bash of attnlab-runs, -table and -evaluate: what bash is given for a line that is being typed."""

import importlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

MAINS = {"attnlab-runs": "attnlab.runs:main", "attnlab-table": "attnlab.table:cli", "attnlab-evaluate": "attnlab.evaluate:main"}


@pytest.fixture
def offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[[str], list[str]]:
    """The words that a line's last one may become; in the folder there is one run."""
    (tmp_path / "outputs" / "runs" / "digits-resnet18-s0-3fa9c1d2").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)

    def of(line: str) -> list[str]:
        command = line.split()[0]
        module, _, name = MAINS[command].partition(":")
        monkeypatch.setenv("COMP_LINE", line)
        monkeypatch.setenv("COMP_POINT", str(len(line)))
        monkeypatch.setattr(sys, "argv", [command, "-sc", command, line.split()[-1], ""])
        getattr(importlib.import_module(module), name)()
        return capsys.readouterr().out.splitlines()

    return of


def test_words_that_go_on(offered: Callable[[str], list[str]]) -> None:
    assert offered("attnlab-runs sh") == ["show "] and offered("attnlab-runs pu") == ["push "]
    assert offered("attnlab-runs show dig") == ["digits-resnet18-s0-3fa9c1d2 "]
    assert offered("attnlab-runs push digits-resnet18-s0-3fa9c1d2 t") == ["to="]
    assert offered("attnlab-runs show x paths.outputs=none di") == []
    assert offered("attnlab-runs attention=rec") == ["rect "]
    assert offered("attnlab-table table=smo") == ["smoke "] and "action=" in offered("attnlab-table ")
    assert offered("attnlab-table table=smoke action=p") == ["plan "]
    assert offered("attnlab-evaluate run=dig") == ["digits-resnet18-s0-3fa9c1d2 "] and "msp " in offered("attnlab-evaluate ood=m")


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")
def test_bash_takes_what_install_prints(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from attnlab import runs

    monkeypatch.setattr(sys, "argv", ["attnlab-runs", "-sc", "install=bash"])
    runs.main()
    line = capsys.readouterr().out
    told = subprocess.run(["bash", "-c", f"{line}complete -p attnlab-runs"], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["complete", "-o", "nospace", "-C", "'attnlab-runs", "-sc'", "attnlab-runs"]
