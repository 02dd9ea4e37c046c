"""What comes from somebody else runs nothing: a record, a table, a checkpoint, scores and a plan cache that try to. A module that is
imported, or a command that is run, would leave a marker."""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from attnlab.config.cells import compose_cells
from attnlab.config.compose import compose
from attnlab.config.targets import ConfigError
from attnlab.evaluate import evaluate, plan_of
from attnlab.evaluation.scores import load_scores
from attnlab.records.atomic import BrokenRecord
from attnlab.records.checkpoint import read_checkpoint
from attnlab.table import main as table_main
from attnlab.tables import plan_cache
from attnlab.tables.spec import read_spec
from tests.conftest import POINTS

EVIL = """
from pathlib import Path
from torch import nn

Path({marker!r}).write_text("imported")


class Net(nn.Linear):
    def __init__(self, *args, **kwargs):
        Path({marker!r}).write_text("called")
        super().__init__(2, 2)
"""
NET = "model: {_target_: evil_of_tests.mod.Net}\n"


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package `evil_of_tests` on the path, with configs; what it leaves when it is imported."""
    path, root = tmp_path / "marker", tmp_path / "site" / "evil_of_tests"
    for name, text in {
        "__init__.py": "",
        "mod.py": EVIL.format(marker=str(path)),
        "conf/model/evil.yaml": "_target_: evil_of_tests.mod.Net\n",
        "conf/experiment/evil.yaml": "# @package _global_\nallow_targets: [evil_of_tests]\n" + NET,
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name in [name for name in sys.modules if name.startswith("evil_of_tests")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SECRET_OF_TESTS", "hush-hush")
    return path


def up(tmp_path: Path) -> str:
    return "/".join([".."] * 20) + f"{tmp_path}/site/evil_of_tests/conf/experiment/evil"


HOSTILE = {
    "targets": ["allow_targets=[evil_of_tests]", "model._target_=evil_of_tests.mod.Net"],
    "added": ["+allow_targets=[evil_of_tests]", "++model._target_=evil_of_tests.mod.Net"],
    "blank": [" allow_targets=[evil_of_tests]", "model._target_=evil_of_tests.mod.Net"],
    "element": ["allow_targets.0=evil_of_tests", "model._target_=evil_of_tests.mod.Net"],
    "package": ["+model@allow_targets=resnet18", "model._target_=evil_of_tests.mod.Net"],
    "searchpath": ["hydra.searchpath=[pkg://evil_of_tests.conf]", "model=evil"],
    "experiment": ["++hydra.searchpath=[pkg://evil_of_tests.conf]", "experiment=evil"],
    "outside": ["experiment={up}"],
    "outside list": ["experiment=[{up}]"],
    "outside group": ["model={up}"],
    "launcher": ["hydra/launcher=basic", "hydra.launcher._target_=evil_of_tests.mod.Net", "model._target_=evil_of_tests.mod.Net"],
    "callbacks": ["+hydra.callbacks.x._target_=evil_of_tests.mod.Net", "model._target_=evil_of_tests.mod.Net"],
    "option": ["--config-dir=/tmp", "model._target_=evil_of_tests.mod.Net"],
}


def words_of(kind: str, tmp_path: Path) -> list[str]:
    return [*POINTS, *(word.replace("{up}", up(tmp_path)) for word in HOSTILE[kind])]


@pytest.fixture
def record(tmp_path: Path) -> Callable[..., Path]:
    """A folder that looks like a finished run, with these overrides."""

    def make(words: list[str], **changed: object) -> Path:
        plan = compose(POINTS)
        folder = tmp_path / "theirs" / plan.run_id
        folder.mkdir(parents=True, exist_ok=True)
        result = {"status": "finished", "run_id": plan.run_id, "config": plan.full, "overrides": words, "metrics": {}, "seed": 0}
        (folder / "result.json").write_text(json.dumps(result | changed))
        return folder

    return make


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_record(kind: str, marker: Path, record: Callable[..., Path], tmp_path: Path) -> None:
    folder = record(words_of(kind, tmp_path), config={**compose(POINTS).full, "allow_targets": ["evil_of_tests"]})
    for folders in ([folder], [folder, folder]) if kind == "targets" else ([folder],):
        with pytest.raises(ValueError) as caught:
            evaluate(folders, [])
        assert "\n" not in str(caught.value) and not marker.exists()


def test_a_record_says_what_it_was_made_with_and_the_command_line_permits_it(marker: Path, record: Callable[..., Path]) -> None:
    words = [*POINTS, "hydra.searchpath=[pkg://evil_of_tests.conf]", "allow_targets=[evil_of_tests]", "model=evil"]
    folder = record(words)
    with pytest.raises(ConfigError, match=r"the run was made with hydra.searchpath=\[pkg://evil_of_tests.conf\] allow_targets=\[evil_of"):
        plan_of(folder, [])
    assert not marker.exists()
    with pytest.raises(ValueError, match="model is the run's own"):  # composed: the package was imported as it was permitted
        plan_of(folder, words[-3:-1])
    assert marker.exists()


@pytest.mark.parametrize("key", ["model.width", "name", "paths.outputs", "data.path", "model", "~name", "hydra.run.dir"])
def test_a_secret_of_the_machine_is_not_read(key: str, marker: Path, record: Callable[..., Path], tmp_path: Path) -> None:
    text = f"{key}=${{oc.env:SECRET_OF_TESTS}}"
    said = ""
    try:
        plan, _ = plan_of(record([*POINTS, text]), [])
        said = repr(plan)  # the word was dropped: what a record says of paths does not count
    except ValueError as error:
        said = str(error)
    table = write_table(tmp_path, common=[text])
    try:
        table_main([f"table={table}", f"paths.outputs={tmp_path / 'outputs'}", f"out={tmp_path / 'out.txt'}"])
        said += (tmp_path / "out.txt").read_text()
    except ValueError as error:
        said += str(error)
    assert "hush-hush" not in said and not any("hush" in str(path) for path in tmp_path.rglob("*"))


def write_table(tmp_path: Path, **changed: object) -> Path:
    import yaml

    tree = {
        "title": "t", "metric": {"key": "test/acc", "label": "accuracy", "direction": "max", "margin": 1.0}, "common": POINTS,
        "rows": {"row": []}, "columns": {"column": []}, "seeds": [0],
    }  # fmt: skip
    path = tmp_path / "theirs.yaml"
    path.write_text(yaml.safe_dump({**tree, **changed}))
    return path


@pytest.mark.parametrize("place", ["common", "rows", "columns", "cells"])
@pytest.mark.parametrize("kind", HOSTILE)
def test_a_table(kind: str, place: str, marker: Path, tmp_path: Path) -> None:
    words = words_of(kind, tmp_path)
    value = {"common": words, "rows": {"row": words}, "columns": {"column": words}, "cells": {"row": {"column": words}}}[place]
    table = write_table(tmp_path, **{place: value})
    for action in ("show", "plan", "run"):
        with pytest.raises(ValueError) as caught:
            table_main([f"table={table}", f"action={action}", f"paths.outputs={tmp_path / 'outputs'}"])
        assert "\n" not in str(caught.value) and not marker.exists()
    assert not (tmp_path / "outputs").exists()


def test_a_table_that_is_a_program(marker: Path, tmp_path: Path) -> None:
    path = tmp_path / "program.yaml"
    path.write_text(f"title: !!python/object/apply:os.system ['touch {marker}']\n")
    with pytest.raises(ConfigError):
        read_spec(str(path))
    assert not marker.exists()


@pytest.mark.parametrize("init", [True, False])
def test_the_command_permits_what_a_table_needs(init: bool, marker: Path, tmp_path: Path) -> None:
    """The remedy in the message works, whether the folder of configs is a package or not."""
    if init:
        (tmp_path / "site" / "evil_of_tests" / "conf" / "__init__.py").write_text("")
    table, permits = write_table(tmp_path, rows={"row": ["model=evil"]}), ["hydra.searchpath=[pkg://evil_of_tests.conf]"]
    asked = [f"table={table}", f"paths.outputs={tmp_path / 'outputs'}", f"out={tmp_path / 'out.txt'}", "action=plan"]
    with pytest.raises(ConfigError, match=r"allow_targets=\[evil_of_tests\] permits it"):
        table_main([*asked, *permits])
    assert not marker.exists()
    assert table_main([*asked, *permits, "allow_targets=[evil_of_tests]"]) == 0
    assert "allow_targets=[evil_of_tests]" in (tmp_path / "out.txt").read_text() and marker.exists()


def test_a_plan_cache(marker: Path, tmp_path: Path) -> None:
    cell = tuple(POINTS)
    first = plan_cache.plans_of([cell], [0])
    path = plan_cache._path(cell)
    kept = json.loads(path.read_text())["kept"]
    kept["plans"][0]["full"] |= {"allow_targets": ["evil_of_tests"]}
    kept["plans"][0]["full"]["data"]["_target_"] = "evil_of_tests.mod.Net"
    for content in (kept, {"kept": kept}, {"kept": kept, "digest": plan_cache.table_cache.digest(kept)}):
        path.write_text(json.dumps(content))
        again = plan_cache.plans_of([cell], [0])
        assert again == first and again[0][0].training == first[0][0].training and not marker.exists()


def test_a_plan_cache_in_which_something_has_changed_is_not_used(marker: Path) -> None:
    """Every value of the plan is covered by the digest."""
    cell = tuple(POINTS)
    first = plan_cache.plans_of([cell], [0])
    path = plan_cache._path(cell)
    text = path.read_text()
    for position in range(text.index('"plans"'), len(text) - 2, 37):
        path.write_text(text[:position] + chr(ord(text[position]) ^ 1) + text[position + 1 :])
        assert plan_cache._kept(cell) in ({}, {0: first[0][0]}), position
    assert compose_cells([cell], [0]) == first


class Payload:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.marker),)


def test_a_checkpoint(marker: Path, tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    for content in ({"attnlab": Payload(marker), "state_dict": {}}, Payload(marker)):
        torch.save(content, path)
        with pytest.raises(BrokenRecord, match="is damaged"):
            read_checkpoint(path, ("x",), {})
    assert not marker.exists()
    torch.load(tmp_path / "last.ckpt.broken", weights_only=False)
    assert marker.exists()  # it would have


def test_scores(marker: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, digest=np.array([Payload(marker)], dtype=object), origin=np.array([Payload(marker)], dtype=object))
    (tmp_path / "scores.npz").write_bytes(buffer.getvalue())
    assert not load_scores(tmp_path / "scores.npz").logits and not marker.exists()
