"""The fast part of the attack: some of everything, in one process that forks. `python -m tests.attack` is the long one."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from attnlab.config.compose import compose
from tests import ROOT
from tests.attack.grammar import ANY, GOOD, REFUSE, SAME, kinds_of, mutants
from tests.attack.lines import whole

PART = {"lines": 60, "kills": 3, "files": 15, "hostile": 15}


@pytest.mark.slow  # .ci/run names it
def test_some_of_everything(tmp_path: Path) -> None:
    words = [word for name, count in PART.items() for word in (f"--{name}", str(count))]
    command = [sys.executable, "-m", "tests.attack", "--minutes", "5", "--json", str(tmp_path / "found.json"), *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert (tmp_path / "found.json").exists(), done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert done.returncode == 0 and not any(found[name]["findings"] for name in PART), {name: found[name]["findings"] for name in PART}
    assert found["kills"]["counts"]["ends compared"] >= 1
    assert all(found[name]["done"] >= count for name, count in PART.items() if name != "hostile") and found["hostile"]["done"] >= 10


def test_mutations_cover_every_kind_and_the_same_seed_gives_the_same_ones() -> None:
    line = GOOD[3].split()
    plan = compose(whole(line))
    one, two = ([mutant for mutant, _ in zip(mutants(line, plan, random.Random(5)), range(400))] for _ in range(2))
    assert one == two
    assert {mutant.expect for mutant in one} == {REFUSE, SAME, ANY} and len({mutant.kind for mutant in one}) > 20


@pytest.mark.parametrize(
    "hint, kinds",
    [(int, {"whole"}), (float, {"whole", "number"}), (int | None, {"whole", "null"}), (list[int], {"list"}), (tuple[int, ...], {"list"})],
)
def test_kinds_of_annotations(hint: object, kinds: set[str]) -> None:
    assert kinds_of(hint) == kinds and kinds_of(Path) is None
