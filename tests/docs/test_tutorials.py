"""docs/tutorials: every block runs as written, in order, in this process and one empty folder; what is shown as output is what was said.

A block behind `<!-- shown: why -->` is not run: bash must name choices that exist. Numbers in outputs may be others than those shown;
words may not. A line of dots stands for lines that are left out.
"""

import contextlib
import importlib
import io
import logging
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import ROOT

FOLDER = ROOT / "docs" / "tutorials"
NAMES = ("own_module", "own_network", "paper_table", "wandb", "cluster", "explanations")
BLOCK = re.compile(r"(?ms)^(?:<!-- shown: (?P<shown>[^\n]+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)^```$")
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"].values()
FUNCTIONS = dict(target.split(":") for target in SCRIPTS)  # of each command's module


class Reader:
    """Somebody who types a tutorial's blocks in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names, self.variables, self.said = folder, {"__name__": "__main__"}, [], ""

    def follow(self, page: str) -> None:
        for found in BLOCK.finditer(page):
            language, text = found["language"], found["text"]
            if found["shown"]:
                self._look(language, text)
            elif language == "text":
                self._compare(text)
            elif named := re.match(r"# ([\w/.-]+\.(?:py|yaml))\b", text):
                path = self.folder / named[1]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
                (self.folder / named[1].partition("/")[0] / "__init__.py").touch()
            elif language == "bash":
                self.said = "".join(self._type(line) for line in text.replace("\\\n", "").splitlines())
            else:
                assert language == "python", language
                with contextlib.redirect_stdout(io.StringIO()) as out:
                    exec(compile(text, "tutorial.py", "exec"), self.names)
                self.said = out.getvalue()

    def _type(self, line: str) -> str:
        if re.fullmatch(r"[A-Z_]+=.*", line):
            self.variables.append(line)
            return ""
        words = self._bash('python() { printf "%s\\0" PYTHON "$@"; }', line)
        if not words.startswith("PYTHON\0"):
            return words
        _, *words = words.rstrip("\0").split("\0")
        out = io.StringIO()
        argv, sys.argv = sys.argv, words[1:] if words[0] == "-m" else words
        code: object = 0
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
                if words[0] == "-m":
                    getattr(importlib.import_module(words[1]), FUNCTIONS[words[1]])()
                else:
                    runpy.run_path(str(ROOT / words[0]), run_name="__main__")
        except SystemExit as stop:
            code = stop.code
        finally:
            sys.argv = argv
            logging.getLogger("attnlab").handlers.clear()  # it speaks to the stream of its day
        assert not code, f"{line}\n{code}\n{out.getvalue()}"
        return out.getvalue()

    def _bash(self, *lines: str) -> str:
        done = subprocess.run(["bash", "-ec", "\n".join([*self.variables, *lines])], cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _look(self, language: str, text: str) -> None:
        """A command that is not run is one that could be: its words name keys and choices that are there."""
        from attnlab.config.compose import loosen

        for line in text.replace("\\\n", "").splitlines() if language == "bash" else ():
            if line.startswith("python -m attnlab."):
                words = self._bash('python() { printf "%s\\0" "$@"; }', line).rstrip("\0").split("\0")[2:]
                loosen([word for word in words if not word.startswith("-")])

    def _compare(self, text: str) -> None:
        said = {_masked(line) for line in self.said.splitlines()}
        for line in text.splitlines():  # in any order: where figures are close, a summary may be sorted otherwise on another machine
            assert not line.strip() or line.strip() == "..." or _masked(line) in said, f"not said: {line}\n\n{self.said}"


def _masked(line: str) -> str:
    """A line without its numbers, dates, addresses and widths."""
    line = re.sub(r"-[0-9a-f]{8}\b", "-ADDRESS", line)
    line = re.sub(r"offline-run-\d+_\d+", "offline-run", line)
    return " ".join(re.sub(r"-?\d[\d.,:]*(e-?\d+)?", "0", line).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One folder for all tutorials, so that a run which two of them have is trained once."""
    patch, made = pytest.MonkeyPatch(), tmp_path_factory.mktemp("tutorials")
    patch.chdir(made)
    patch.syspath_prepend(str(made))
    patch.setenv("HYDRA_FULL_ERROR", "1")
    patch.setattr("attnlab.sweeps.cli.die_with_parent", lambda: None)  # it would be pytest that dies
    yield made
    for name in [name for name in sys.modules if name.partition(".")[0] == "mine"]:
        del sys.modules[name]
    if "wandb" in sys.modules:
        sys.modules["wandb"].teardown()
    patch.undo()


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_runs_as_written(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")  # the width of what is shown
    Reader(folder).follow((FOLDER / f"{name}.md").read_text())


def test_every_tutorial_is_followed() -> None:
    assert {path.stem for path in FOLDER.glob("*.md")} == {"index", *NAMES}
