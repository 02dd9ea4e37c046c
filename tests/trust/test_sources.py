"""Folders of configs of others: what their files say of Hydra's own part, of paths and of permissions runs nothing: it is refused."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from attnlab.config.cells import compose_cells
from attnlab.config.compose import compose, options_last
from attnlab.config.targets import ConfigError
from attnlab.sweeps.cli import main
from tests.conftest import POINTS

MKDIR = "{_target_: os.mkdir, path: MARKER}"
# files of configs/experiment; MARKER is a folder that would be made
HOSTILE = {
    "callbacks": "# @package _global_\nhydra: {callbacks: {x: " + MKDIR + "}}\n",
    "package": "# @package hydra.callbacks.x\n_target_: os.mkdir\npath: MARKER\n",
    "launcher": "# @package _global_\nhydra: {launcher: {x: " + MKDIR + "}}\n",
    "sweeper": "# @package _global_\nhydra: {sweeper: {params: " + MKDIR + "}}\n",
    "log": "# @package _global_\nhydra: {job_logging: {version: 1, handlers: {x: {(): os.mkdir, path: MARKER}}, root: {handlers: [x]}}}\n",
    "environment": "# @package _global_\nhydra: {job: {env_set: {PATH: MARKER}}}\n",
    "folder": "# @package _global_\nhydra: {run: {dir: MARKER}, output_subdir: .hydra}\n",
    "mode": "# @package _global_\nhydra: {mode: MULTIRUN}\n",
    "default": "# @package _global_\ndefaults: [{override /hydra/launcher: submitit_local}]\n",
    "elsewhere": "# @package _global_\ndefaults: [{/model@hydra.callbacks.x: theirs}]\n",
    "paths": "# @package _global_\npaths: {outputs: MARKER}\n",
    "secret": "# @package _global_\npaths: {outputs: '${oc.env:SECRET_OF_TESTS}'}\n",
    "permission": "# @package _global_\nallow_targets: [os]\n",
}


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """`theirs(text)` writes configs/experiment/theirs.yaml and gives the word that finds it."""
    monkeypatch.setenv("SECRET_OF_TESTS", str(tmp_path / "marker"))

    def write(text: str) -> str:
        for path, content in {"experiment": text, "model": "_target_: os.mkdir\npath: MARKER\n"}.items():
            (tmp_path / "conf" / path).mkdir(parents=True)
            (tmp_path / "conf" / path / "theirs.yaml").write_text(content.replace("MARKER", str(tmp_path / "marker")))
        return f"hydra.searchpath=[file://{tmp_path}/conf]"

    return write


def run_main(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says on stderr; it must refuse."""
    monkeypatch.setattr(sys, "argv", ["train", *words])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(SystemExit) as left:
        main(lambda plan: None)
    assert left.value.code == 1
    return capsys.readouterr().err


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_file_of_others_says_nothing_of_hydra(kind: str, theirs, tmp_path: Path, monkeypatch, capsys) -> None:
    words = [*POINTS, theirs(HOSTILE[kind]), f"paths.outputs={tmp_path}/outputs", "experiment=theirs"]
    before = dict(os.environ)
    for attempt in (lambda: compose(words), lambda: compose_cells([words], [0])):
        with pytest.raises(ConfigError, match="which counts on the command line alone"):
            attempt()
    monkeypatch.chdir(tmp_path)
    for mode in ([], ["-m"]):
        said = run_main([*words, *mode], monkeypatch, capsys)
        assert said.count("\n") == 1 and "counts on the command line alone" in said
    assert not (tmp_path / "marker").exists() and not (tmp_path / "outputs").exists()
    assert {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"} == {
        **{key: value for key, value in before.items() if key != "PYTEST_CURRENT_TEST"},
        "HYDRA_FULL_ERROR": "1",
    }


def test_a_folder_given_as_an_option_is_of_others_too(theirs, tmp_path: Path, monkeypatch, capsys) -> None:
    theirs(HOSTILE["callbacks"])
    said = run_main([f"--config-dir={tmp_path}/conf", *POINTS, "experiment=theirs"], monkeypatch, capsys)
    assert "sets hydra" in said and not (tmp_path / "marker").exists()


BROKEN = (
    "x: !!python/object/apply:os.mkdir [MARKER]\n",
    "a: [1\n",
    "a: 1\n b: 2\n",
    "\t- x",
    "a: &a [*a]\n",
    "[1, 2]\n",
    "text\n",
    "a: \x07\n",
)


@pytest.mark.parametrize("text", BROKEN)
def test_a_file_that_is_no_config(text: str, theirs, tmp_path: Path, monkeypatch, capsys) -> None:
    words = [*POINTS, theirs("# @package _global_\n" + text), "experiment=theirs"]
    with pytest.raises(ConfigError) as caught:
        compose(words)
    assert "\n" not in str(caught.value)
    said = run_main(words, monkeypatch, capsys)
    assert said.count("\n") == 1 and not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "words, said",
    [
        (
            "hydra/launcher=submitit_slurm hydra.launcher.partion=gpu",
            r"unknown key hydra.launcher.partion; nearest: hydra.launcher.partition",
        ),
        ("hydra/launcher=local hydra.launcher.jobs=3", "unknown key hydra.launcher.jobs; known: hydra.launcher._target_, hydra.launcher."),
        ("hydra/launcher=locl", "hydra/launcher=locl: there is no such choice; known: basic"),
        ("seed=0 --foo", "unrecognized arguments: --foo; --help shows what there is"),
        ("hydra.verbose=7", "hydra.verbose=7: must be true, false, or names of loggers"),
    ],
)
def test_a_mistake_in_hydras_own_keys_is_one_line_with_the_nearest_names(words: str, said: str, monkeypatch, capsys) -> None:
    found = run_main(["seed=0,1", "-m", *words.split()], monkeypatch, capsys)
    assert found.startswith(f"attnlab: {said}") and found.count("\n") == 1


def test_options_may_stand_anywhere() -> None:
    words = ["a=1", "-m", "b=2", "--config-dir", "x", "c=3", "--cfg", "job"]
    assert options_last(words) == ["a=1", "b=2", "c=3", "-m", "--config-dir", "x", "--cfg", "job"]


def test_a_harmless_file_of_others_is_taken(theirs) -> None:
    word = theirs("# @package _global_\ndefaults: [{override /schedule: cosine}]\nseed: 7\n")
    assert compose([*POINTS, word, "experiment=theirs"]).full["seed"] == 7
    with pytest.raises(ConfigError, match=r"'os\.mkdir' is outside the packages"):
        compose([*POINTS, word, "model=theirs"])


@pytest.mark.parametrize("place", ["file:///no/such/folder", "pkg://no_such_package", "no_such_folder", "pkg://os", "3"])
def test_a_folder_that_is_not_there(place: str, monkeypatch, capsys) -> None:
    with pytest.raises(ConfigError, match=r"hydra\.searchpath") as caught:
        compose([*POINTS, f"hydra.searchpath=[{place}]"])
    assert "\n" not in str(caught.value)
    said = run_main([*POINTS, f"hydra.searchpath=[{place}]"], monkeypatch, capsys)
    assert said.count("\n") == 1 and "hydra.searchpath" in said
