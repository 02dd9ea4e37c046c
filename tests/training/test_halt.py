"""halt: a run that does worse than it must ends for now, and goes on as if it never had."""

import json

import pytest
import torch

from attnlab.callbacks.halt import Halt
from attnlab.config.compose import compose
from attnlab.config.targets import ConfigError
from attnlab.records.query import read_runs
from attnlab.records.record import read_history
from tests.conftest import POINTS

WORDS = [*POINTS, "trainer.max_epochs=4", "data.val=0.25", "callback=[best]", "ood=none", "evaluator=none"]


def rows(*values: float | None) -> list[dict[str, float]]:
    return [{"epoch": epoch} | ({} if value is None else {"val/acc": value}) for epoch, value in enumerate(values)]


def test_the_best_so_far_is_held_against_the_value_of_the_epoch() -> None:
    halt = Halt(worse_than={"1": 0.2, 3: 0.5})
    assert halt.reason(rows(0.1)) == "val/acc is 0.1 after epoch 1, worse than 0.2"
    assert not halt.reason(rows(0.2)) and not halt.reason(rows(0.1, 0.1)) and not halt.reason([])
    assert not halt.reason(rows(0.2, 0.5, 0.3)) and halt.reason(rows(0.2, 0.45, 0.49)) and not halt.reason(rows(0.2, 0.1, None))
    nan = float("nan")
    assert halt.reason(rows(nan, nan, nan)) == "val/acc is nan after epoch 3, worse than 0.5" and not halt.reason(rows(0.6, nan, nan))
    less = Halt(metric="val/nll", mode="min", worse_than={1: 2.0})
    assert less.reason([{"epoch": 0, "val/nll": 2.5}]) and not less.reason([{"epoch": 0, "val/nll": 2.0}])


def test_it_is_no_part_of_the_address_and_mistakes_are_one_line() -> None:
    assert compose([*WORDS, "halt={worse_than: {1: 0.2}}"]).run_id == compose(WORDS).run_id
    for words, message in {
        "halt=3": "halt=3: must be keys with values or null",
        "halt={worse: {1: 1}}": "unknown key halt.worse; nearest: halt.worse_than",
        "halt={metric: val/acc}": "halt.worse_than: required",
        "halt={worse_than: {a: 1}}": r"halt: worse_than=\{'a': 1\}: must be epochs with numbers, such as \{5: 0.4\}",
        "halt={worse_than: {0: 1, 2: 1}}": "halt: worse_than=.*: epochs count from 1",
        "halt={metric: test/acc, worse_than: {1: 1}}": "halt: metric=test/acc: a run cannot be halted by test images",
        "halt={mode: more, worse_than: {1: 1}}": "halt.mode=more: must be one of max, min",
        "halt={worse_than: {1: 1}, _target_: os.system}": "must be keys with values or null",
    }.items():
        with pytest.raises(ConfigError, match=message):
            compose([*WORDS, words])


def test_a_halted_run_is_no_result_and_goes_on_as_if_it_never_had_been(run, tmp_path, capsys) -> None:
    def halted(*words: str) -> dict:
        found = run(*words, base=WORDS)
        assert found["status"] == "halted" and found["metrics"] == {} and not (found["folder"] / "scores.npz").exists()
        return found

    first = halted("halt={worse_than: {1: 0.0, 2: 1.1}}")
    assert [row["epoch"] for row in read_history(first["folder"] / "metrics.csv")] == [1, 2]
    (listed,) = read_runs(run.outputs)
    assert listed.status == "halted" and listed.error.endswith("after epoch 2, worse than 1.1")
    path = first["folder"] / "last.ckpt"
    before = path.read_bytes()
    halted("halt={worse_than: {2: 1.2}}")  # it stands there already: nothing is trained
    assert path.read_bytes() == before
    halted("halt={worse_than: {3: 1.1}}")
    whole = run(base=WORDS)
    assert whole["status"] == "finished" and "error" not in whole and whole["folder"] == first["folder"]
    assert run("halt={worse_than: {1: 1.1}}", base=WORDS)["status"] == "finished"  # it is there
    reference = run(f"paths.outputs={tmp_path}/other", base=WORDS)
    assert json.dumps(whole["metrics"]) == json.dumps(reference["metrics"])
    one, two = (torch.load(found["folder"] / "last.ckpt", weights_only=True) for found in (whole, reference))
    assert all(torch.equal(one["state_dict"][name], two["state_dict"][name]) for name in two["state_dict"])
