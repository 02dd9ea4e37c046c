"""A run knows by which code it was made: what counts as a change, whose is refused, what is said of attnlab's own."""

import ast
import io
import json
import logging
import sys
import tokenize
from pathlib import Path
from typing import Any

import pytest

import attnlab
from attnlab.config.compose import compose
from attnlab.records import code
from attnlab.records.lookup import check_code, record_of
from tests.commands import Ended, start

TINY = [
    "data=two_moons", "model=mlp2d", "model.width=8", "data.num_train=64", "data.num_test=64", "data.batch_size=16", "trainer.max_epochs=3",
    "trainer.accelerator=cpu", "trainer.threads=1", "trainer.checkpoint_seconds=0", "logger=none", "ood=none", "evaluator=none",
]  # fmt: skip
SCALE = '''"""A gate."""
from torch import nn

from {package}.layers import times  # a helper


class Scale(nn.Module):
    """y = 2 x."""

    def forward(self, x):
        return times(x, 2.0)
'''


class Theirs:
    """A package of somebody's, with a component in one module and what it is made of in another."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name, self.outputs = folder, name, folder / "outputs"
        (folder / name / "conf" / "attention").mkdir(parents=True)
        self.write("__init__.py", "")
        self.write("layers.py", "def times(x, by):\n    return x * by\n")
        self.write("other.py", "import math\n")
        self.write("gate.py", SCALE.format(package=name))
        self.write("conf/attention/scale.yaml", f"scale: {{at: features, module: {{_target_: {name}.gate.Scale}}}}\n")

    def write(self, file: str, text: str) -> None:
        (self.folder / self.name / file).write_text(text)

    @property
    def permitted(self) -> list[str]:
        return [f"hydra.searchpath=[file://{self.folder / self.name / 'conf'}]", f"allow_targets=[{self.name}]"]

    @property
    def words(self) -> list[str]:
        return [*TINY, *self.permitted, "attention=scale", f"paths.outputs={self.outputs}"]

    def run(self, *words: str, command: str = "train") -> Ended:
        return start(f"attnlab.{command}", *(self.words if command == "train" else []), *words, path=self.folder).end()

    def folders(self) -> set[Path]:
        return {path.parent for path in self.outputs.glob("runs/*/result.json")}

    def result(self) -> dict[str, Any]:
        (folder,) = self.folders()
        return json.loads((folder / "result.json").read_text())


def test_comments_and_docstrings_are_no_code() -> None:
    bare = b'import os\nx = "# no comment"\ndef f(x):\n    return x  \n'
    said = b'"""About."""\n# more\nimport os  # why\n\n\nx = "# no comment"\ndef f(x):  # so\n'
    said += b'    """Doc # with\n\n    lines."""\n    return x\n'
    assert code._bare(said) == code._bare(bare) == b'import os\nx = "# no comment"\ndef f(x):\n    return x'
    for other in (b"x + 1", b"-x", b'x  # "'):
        assert (code._bare(bare.replace(b"return x", b"return " + other)) == code._bare(bare)) == other.startswith(b"x  #")
    assert code._bare(b"x = '#1'\n") != code._bare(b"x = '#2'\n") and code._bare(b"x = '''\n#1'''\n") != code._bare(b"x = '''\n#2'''\n")


def test_the_code_of_a_module_is_that_of_pythons_own_reader() -> None:
    """By tokens and a parsed tree, over every module there is; ours is by text, as it must be the same under every Python, and quick."""
    for path in sorted(Path(attnlab.__file__).parent.rglob("*.py")):
        content = path.read_bytes()
        lines = [list(line) for line in content.decode().splitlines()]
        for token in tokenize.tokenize(io.BytesIO(content).readline):
            if token.type == tokenize.COMMENT:
                lines[token.start[0] - 1][token.start[1] : token.end[1]] = ""
        for node in ast.walk(ast.parse(content)):
            documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None
            for row in range(node.body[0].lineno - 1, node.body[0].end_lineno) if documented else ():
                lines[row] = []
        kept = ("".join(line).rstrip() for line in lines)
        assert code._bare(content) == "\n".join(line for line in kept if line).encode(), path


def test_what_a_component_imports_of_its_package_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Theirs(tmp_path, "theirs_counted")
    theirs.write("layers.py", "from . import deep\nfrom .sub import deeper\n\n\ndef times(x, by):\n    return x * by\n")
    theirs.write("deep.py", "import json\n")
    (tmp_path / "theirs_counted" / "sub").mkdir()
    theirs.write("sub/__init__.py", "")
    theirs.write("sub/deeper.py", "def unused():\n    import theirs_counted.late\n")
    theirs.write("late.py", "")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = code.code_of(compose(theirs.words))
    mine = {name.removeprefix("theirs_counted") for name in found if not name.startswith("attnlab.")}
    assert mine == {"", ".gate", ".layers", ".deep", ".sub", ".sub.deeper"}
    assert "attnlab.losses.cross_entropy" in found and not any("logger" in name for name in found)
    assert "attnlab.evaluation.ood" in code.code_of(compose([*theirs.words, "evaluator=[ood]"]))
    assert "attnlab.evaluation.ood" not in code.code_of(compose([*theirs.words, "evaluator=[ood]"]), trained=True)
    for name in [name for name in sys.modules if name.startswith("theirs_counted")]:
        monkeypatch.delitem(sys.modules, name)


def test_a_changed_component_of_ones_own_is_not_taken_for_the_old_one(tmp_path: Path) -> None:
    theirs = Theirs(tmp_path, "theirs_changed")
    assert theirs.run().code == 0
    made = theirs.result()
    assert {"theirs_changed.gate", "theirs_changed.layers"} <= made["code"].keys()
    shown = theirs.run("show", made["run_id"], f"paths.outputs={theirs.outputs}", command="runs").out
    assert f"theirs_changed.gate {made['code']['theirs_changed.gate'][:8]}" in shown and "attnlab.losses" not in shown
    theirs.write("gate.py", SCALE.format(package=theirs.name).replace("# a helper", "# of mine").replace("y = 2 x", "twice"))
    theirs.write("other.py", "import random\n")  # nobody imports it
    assert "finished before" in theirs.run().err
    theirs.write("layers.py", "def times(x, by):\n    return x * by + 1\n")
    again = theirs.run()
    assert again.code == 1 and not again.traceback and theirs.result() == made
    told = "theirs_changed.layers: the code is not that of "
    assert told in again.last_line and again.last_line.endswith("same_code=true says that it computes the same")
    (folder,) = theirs.folders()
    swept = theirs.run("-m", "seed=0,1")
    assert swept.code == 1 and told in swept.err and "1 done" in swept.err  # the other one is made by the new code
    assert "finished before" in theirs.run("same_code=true").err
    (kept,) = theirs.folders() - {folder}
    then = (kept / "result.json").read_text()
    anew = theirs.run("-m", "seed=0,1", "same_code=false")  # that which is of other code, and no more
    assert anew.code == 0 and "1 done, 1 skipped" in anew.err and "same_code=false: the old record is kept in" in anew.err
    assert "finished before" in theirs.run().err and (kept / "result.json").read_text() == then
    assert len(list(theirs.outputs.rglob("result.json"))) == 3


def test_a_run_that_goes_on_under_other_code_says_so(tmp_path: Path) -> None:
    theirs = Theirs(tmp_path, "theirs_resumed")
    halt = "halt={metric: train/loss, mode: min, worse_than: {1: -1.0}}"
    assert theirs.run(halt).code == 0 and theirs.result()["status"] == "halted"
    theirs.write("layers.py", "def times(x, by):\n    return by * x\n")
    refused = theirs.run()
    assert refused.code == 1 and "theirs_resumed.layers: the code is not that of" in refused.last_line
    assert theirs.result()["status"] == "halted" and theirs.run().last_line == refused.last_line
    assert theirs.run("same_code=true", halt.replace("1:", "2:")).code == 0 and theirs.run().code == 0
    text = "several codes: it was begun by other code of theirs_resumed.layers than it was ended by"
    assert text in theirs.result()["warnings"] and len(theirs.result()["warnings"]) == 2  # at chance, too


def test_a_network_of_other_code_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    theirs = Theirs(tmp_path, "theirs_shared")
    assert theirs.run().code == 0
    (first,) = theirs.folders()
    assert theirs.run("ood=msp").code == 0  # the same code: one training
    (second,) = theirs.folders() - {first}
    assert json.loads((second / "result.json").read_text())["trained_by"] == first.name
    theirs.write("layers.py", "def times(x, by):\n    return x * by / 2\n")
    assert theirs.run("ood=energy").code == 0
    (third,) = theirs.folders() - {first, second}
    assert "trained_by" not in json.loads((third / "result.json").read_text())
    asked = theirs.run(f"run={first}", *theirs.permitted, "evaluator=[calibration]", command="evaluate")
    assert asked.code == 0 and f"code is not that of {first.name}: theirs_shared.layers" in asked.err


def test_what_is_loaded_says_that_it_was_trained_by_other_code(tmp_path: Path, caplog, monkeypatch: pytest.MonkeyPatch) -> None:
    assert start("attnlab.train", *TINY, f"paths.outputs={tmp_path}").end().code == 0
    (folder,) = {path.parent for path in tmp_path.glob("runs/*/result.json")}
    monkeypatch.setattr(logging.getLogger("attnlab"), "propagate", True)
    attnlab.load(folder)
    assert not caplog.messages
    own = code.code_of
    monkeypatch.setattr(code, "code_of", lambda plan, **options: {**own(plan, **options), "attnlab.backbones.mlp2d": "0" * 16})
    attnlab.load(folder)
    assert caplog.messages == [f"load({str(folder)!r}): trained by other code of attnlab.backbones.mlp2d than the present"]


def test_other_code_of_attnlab_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = compose([*TINY, f"paths.outputs={tmp_path}"])
    now = code.code_of(plan)
    monkeypatch.setattr(logging.getLogger("attnlab"), "propagate", True)
    caplog.set_level("INFO", logger="attnlab")
    assert check_code(plan, record_of(plan), {"code": now}) == [] and check_code(plan, record_of(plan), {}) == []
    then = {**now, "attnlab.losses.cross_entropy": "0" * 16, "attnlab.losses.gone": "1" * 16}
    assert check_code(plan, record_of(plan), {"code": then}) == ["attnlab.losses.cross_entropy"]
    assert caplog.messages == [f"{plan.run_id}: made by other code of attnlab.losses.cross_entropy"]
