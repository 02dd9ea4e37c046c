"""That `python -m tests.mutate` works: what it changes, what it leaves alone, that a wrong change is noticed and an untested line found."""

from pathlib import Path

import pytest

from tests import ROOT
from tests.mutate import runner, targets
from tests.mutate.__main__ import corrected, main, table
from tests.mutate.mutations import mutations

METHOD = '''
def scaled(x, *, by=2.0):
    """Sum of x, scaled."""
    if by < 0:
        raise ValueError(f"by must be at least {0 + 0}, got {by}")
    return by * sum(x)


def forgotten(x):
    return x + 1


def endless(n):
    while n > 0:
        n -= 1
    return n
'''
TEST = """
import pytest
from tiny_method import endless, scaled

def test_scaled():
    assert scaled([1, 2]) == 6 and scaled([1, 2], by=0) == 0
    with pytest.raises(ValueError, match="by must be"):
        scaled([1], by=-0.5)

def test_endless():
    assert endless(3) == 0
"""


def changes(source: str, **options) -> list[str]:
    return [mutation.after for mutation in mutations(source, **options)[1]]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("y = a + b", ["y = a - b"]),
        ("y = -x", ["y = x"]),
        ("y = x.detach()", ["y = x"]),
        ("y = torch.sqrt(x)", ["y = torch.square(x)", "y = x"]),
        ("y = x.softmax(1)", ["y = x.log_softmax(1)", "y = x.softmax(2)"]),
        ("y = x.mean(dim=0)", ["y = x.sum(dim=0)", "y = x.mean()", "y = x.mean(dim=1)"]),
        ("y = x.amax(-1)", ["y = x.amin(-1)", "y = x.amax(1)", "y = x.amax(-2)"]),
        ("y = torch.maximum(a, b)", ["y = torch.minimum(a, b)", "y = a + b"]),
        ("y = torch.where(c, a, b)", ["y = torch.where(c, b, a)"]),
        ("y = 1 < x", ["y = 1 <= x", "y = 1 >= x", "y = 2 < x"]),
        ("y = loss(x, reduction='sum')", ["y = loss(x)", "y = loss(x, reduction='mean')"]),
        ("if ready: go(x)", ["if not ready: go(x)", "if ready: pass"]),
        ("self.x = a and not b", ["pass", "self.x = a or not b", "self.x = a and b"]),
        ("x *= 0.5", ["pass", "x /= 0.5", "x *= 1.0"]),
        ("x = torch.zeros(n, device=d).T", ["x = torch.zeros(n, device=d)", "x = torch.ones(n, device=d).T"]),
        ("def f(a, *, b=3): pass", ["def f(a, *, b=4): pass"]),
    ],
)
def test_what_is_changed(source: str, expected: list[str]) -> None:
    assert sorted(changes(source)) == sorted(expected)


@pytest.mark.parametrize(
    "source",
    [
        '"""A text of -1 + 2."""',
        "raise ValueError(f'{a + 1}')",
        "x: Literal[1, 2]",
        "def f(x: tuple[int, 3]) -> Literal[2]: return x",
        "@cache(maxsize=3)\ndef f(): return x",
        "log.warning('%d', n + 1)",
        "class A:\n    def extra_repr(self): return 1 + 1",
        "y = 'a' + f(x)",
        "from a import b",
        "y = zip(a, b, strict=True)",
    ],
)
def test_what_is_left_alone(source: str) -> None:
    assert changes(source) == []


def test_a_default_that_a_yaml_says_again_is_left_alone() -> None:
    source = "def f(*, drop=0.3, block=7): pass"
    assert changes(source, defaults={"drop": 0.3, "block": 5}) == ["def f(*, drop=0.3, block=8): pass"]
    assert targets.yaml_defaults(ROOT / "attnlab/regularizers/maxdropout.py")["drop"] == 0.3


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # the fork: no thread holds anything that the child needs
def test_a_wrong_change_dies_and_an_untested_line_survives(tmp_path: Path, monkeypatch) -> None:
    method, test = tmp_path / "tiny_method.py", tmp_path / "test_tiny.py"
    method.write_text(METHOD)
    test.write_text(TEST)
    monkeypatch.syspath_prepend(tmp_path)
    tree, every = mutations(METHOD)
    wanted = ["return by / sum(x)", "def scaled(x, *, by=4.0):", "if by <= 0:", "return x - 1", "n += 1", "if by < 1:"]
    chosen = [mutation for mutation in every if mutation.after in wanted]
    bench = runner.Bench("tiny_method", method, [str(test)])
    bench.limit = 1.5  # seconds of CPU
    ends = {mutation.after: end for mutation, end in bench.run(tree, chosen, jobs=2)}
    assert ends == {**dict.fromkeys(wanted, runner.KILLED), "return x - 1": runner.SURVIVED, "n += 1": runner.TIMEOUT}
    test.write_text(TEST + "    assert False")
    with pytest.raises(RuntimeError, match=r"do not pass unmutated: .*test_endless"):
        runner.Bench("tiny_method", method, [str(test)])


def test_every_method_file_has_tests() -> None:
    files = targets.method_files()
    assert len(files) > 100
    assert [path.name for path in files if not targets.tests_of(path)] == []
    assert all((ROOT / node.split("::")[0]).is_file() for path in files for node in targets.nodes_of(path))


def test_every_explanation_explains_a_mutant() -> None:
    files = {entry["file"] for entry in targets.equivalent()}
    found = {file: mutations((ROOT / file).read_text(), targets.yaml_defaults(ROOT / file))[1] for file in files}
    assert targets.stale(found) == []
    assert all(len(entry["why"]) > 10 for entry in targets.equivalent())
    assert [entry["file"] for entry in targets.stale({})] == [entry["file"] for entry in targets.equivalent()]


def test_the_list_and_the_table(capsys) -> None:
    main(["--list", str(ROOT / "attnlab/distillation/kd.py")])
    assert capsys.readouterr().out.split()[:3] == ["attnlab/distillation/kd.py", "27", "mutants"]
    row = {"file": "a.py", "mutants": 9, "killed": 5, "timeout": 1, "survived": 1, "broken": 0, "explained": 2}
    assert table([row]).splitlines()[-1] == "6 of 7 die: 85.7%" and "| a.py | 9 | 6 | 2 | 1 |" in table([row])


def test_results_are_corrected_by_what_became_of_their_survivors() -> None:
    left = [[3, "a", "b", "survived"]] * 4
    before = {"file": "a.py", "mutants": 9, "killed": 4, "timeout": 1, "survived": 4, "broken": 0, "explained": 0, "left": left}
    again = {"file": "a.py", "mutants": 3, "killed": 1, "timeout": 0, "survived": 1, "broken": 0, "explained": 1, "left": left[:1]}
    found = corrected(before, again)
    assert table([found]).splitlines()[2] == "| a.py | 8 | 6 | 1 | 1 |" and found["left"] == left[:1]
