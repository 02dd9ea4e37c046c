"""The other roles: a student with a module in a table, a reviewer of a table, a cluster user, somebody in a notebook."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.roles.conftest import README, SMALL, block, line

Command = Callable[..., tuple[list[str], str]]


def test_a_sweep_is_repeated_and_summed_up(command: Command, tmp_path: Path) -> None:
    """The cluster user: the README's sweep, once more, and the rows of what was swept."""
    sweep = line("python -m attnlab.train -m seed=0,1,2 attention=none,rect")
    sweep = sweep.replace("seed=0,1,2", "seed=0,1")
    out, said = command(sweep, *SMALL)
    assert len([path for path in out if path.endswith("result.json")]) == 4 and "4 done" in said
    heads, *rows = said[said.index("  attention  test/acc") :].splitlines()
    assert heads.split() == ["attention", "test/acc", "sd", "n"] and sorted(row.split()[0] for row in rows[:2]) == ["none", "rect"]
    means = [float(row.split()[1]) for row in rows[:2]]
    assert means == sorted(means, reverse=True) and all(row.split()[-1] == "2" for row in rows[:2])
    found = {word: [] for word in ("none", "rect")}
    for path in out:
        result = json.loads(Path(path).read_text())
        found["rect" if result["places"] else "none"].append(result["metrics"]["test/acc"])
    assert means == pytest.approx(sorted((sum(values) / 2 for values in found.values()), reverse=True), abs=1e-4)
    again, said = command(sweep, *SMALL)
    assert sorted(again) == sorted(out) and "0 done, 4 skipped" in said
    told, _ = command(line("python -m attnlab.runs by=attention,data"))
    assert told[0].split() == ["attention", "data", "mean", "sd", "n"] and (tmp_path / "a.png").exists()


def test_slurm_is_chosen_by_the_readmes_words() -> None:
    from attnlab.config.compose import loosen

    command = next(one for one in README.replace("\\\n", "").splitlines() if "hydra/launcher=submitit_slurm" in one)
    assert any(word == "hydra/launcher=submitit_slurm" for word in loosen(command.split()[3:]))


def test_a_student_puts_a_module_into_a_table(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "hers_in_table"
    (folder / "conf" / "attention").mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "gate.py").write_text(block("example: component"))
    (folder / "conf" / "attention" / "gate.yaml").write_text("gate:\n  at: layer*\n  module: {_target_: hers_in_table.gate.Gate}\n")
    table = {
        "title": "Gate",
        "metric": {"key": "test/acc", "label": "accuracy", "direction": "max", "margin": 1.0},
        "common": SMALL,
        "rows": {"plain": ["attention=none"], "gate": ["attention=gate"]},
        "columns": {"digits": ["data=digits"]},
        "seeds": [0],
    }
    Path("gate.yaml").write_text(json.dumps(table))
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["hydra.searchpath=[pkg://hers_in_table.conf]", "allow_targets=[hers_in_table]"]
    plan, _ = command("python -m attnlab.table table=gate.yaml action=plan", *words)
    assert any("attention=gate" in one for one in plan)
    with pytest.raises(AssertionError, match=r"allow_targets=\[hers_in_table\] permits it"):
        command("python -m attnlab.table table=gate.yaml action=plan", words[0])


def test_a_reviewer_reads_a_table(command: Command, tmp_path: Path) -> None:
    shown, _ = command(line("python -m attnlab.table table=smoke"))
    assert any("rect" in one for one in shown)
    command(line("python -m attnlab.table table=maxdropout format=html"))
    assert "<table" in (tmp_path / "maxdropout.html").read_text()
    with pytest.raises(AssertionError, match=r"out=a.xyz: its ending says no format; use one of .txt, .md, .csv, .tex, .html"):
        command("python -m attnlab.table table=smoke out=a.xyz")


def test_a_notebook(command: Command, tmp_path: Path) -> None:
    """`load` as the README has it, of a run that is there."""
    (path,), _ = command("python -m attnlab.train", *SMALL)
    names = {"images_BCHW": torch.zeros(2, 1, 16, 16, dtype=torch.uint8)}
    exec(compile(re.sub(r"3fa9", Path(path).parent.name.rpartition("-")[2][:6], block("example: load")), "load.py", "exec"), names)
    assert names["logits"].shape == (2, 10) and len(names["classes"]) == 10
