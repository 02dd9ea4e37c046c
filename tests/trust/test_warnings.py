"""A run that ends at chance or whose loss is absurd says so: in its record, its summary, the list of runs and the footnotes of a table."""

import json
import math
from collections.abc import Callable

import pytest

from attnlab.records.plausible import warnings_of
from attnlab.runs import run_command
from attnlab.table import main as table_main
from tests.conftest import POINTS
from tests.trust.test_nothing_runs import write_table

FINE = {"test/acc": 0.9, "test/nll": 0.3}
GOING_DOWN = [{"train/loss": 2.0}, {"train/loss": 1.0}]
TEN = [100] * 10


def kinds(metrics: dict, history: list = GOING_DOWN, counts: list[int] = TEN) -> list[str]:
    return [text.partition(":")[0] for text in warnings_of(metrics, history, counts)]


def test_criteria() -> None:
    assert kinds(FINE) == [] and kinds({}) == [] and kinds(FINE, []) == []
    edge = 0.1 + 2.576 * math.sqrt(0.1 * 0.9 / 1000)
    assert kinds(FINE | {"test/acc": edge - 1e-6}) == ["at chance"] and kinds(FINE | {"test/acc": edge + 1e-6}) == []
    assert kinds(FINE, counts=[950, 50]) == ["at chance"] and kinds(FINE, counts=[700, 300]) == []  # the largest class counts
    assert kinds(FINE | {"test/acc": 0.0}, counts=[0, 5]) == []  # of one class there is nothing to guess
    assert (
        kinds(FINE, [{"train/loss": 1.0}, {"train/loss": 3.01}]) == ["diverged"]
        and kinds(FINE, [{"train/loss": 1.0}, {"train/loss": 2.99}]) == []
    )
    assert kinds(FINE, [{"train/loss": -1.0}, {"train/loss": 0.5}]) == []
    assert kinds(FINE | {"test/nll": 3.01 * math.log(10)}) == ["diverged"] and kinds(FINE | {"test/nll": 2.99 * math.log(10)}) == []
    assert kinds(FINE | {"ood/a": math.nan, "b": math.inf, "c": None}) == ["not finite"]


def test_they_are_shown_wherever_the_run_is(run: Callable[..., dict], tmp_path, caplog, capsys) -> None:
    words = ["optimizer.lr=1e-9", "trainer.max_epochs=1"]
    bad, good = run(*words, base=POINTS), run("trainer.max_epochs=20", base=POINTS)
    assert "warnings" not in good and bad["warnings"][0].startswith("at chance: test/acc 0.")
    assert f"warning: {bad['warnings'][0]}" in caplog.text
    caplog.clear()
    run(*words, base=POINTS)  # finished before
    assert f"warning: {bad['warnings'][0]}" in caplog.text
    where = f"paths.outputs={run.outputs}"
    run_command([where])
    listed = capsys.readouterr()
    assert listed.out.count("finished !") == 1 and "!: has warnings, see show" in listed.err
    run_command(["show", bad["run_id"], where])
    assert bad["warnings"][0] in capsys.readouterr().out
    table = write_table(tmp_path, rows={"bad": words, "good": ["trainer.max_epochs=20"]})
    assert table_main([f"table={table}", where, f"out={tmp_path / 'out'}"]) == 0
    notes = " ".join((tmp_path / "out").read_text().split())
    assert f"warning, at chance: {bad['run_id']} (1 runs)" in notes
    assert "warnings" in json.loads((bad["folder"] / "result.json").read_text())


@pytest.mark.parametrize(
    "words", [["model=cnn3"], ["model=cnn3", "optimizer=adamw"], ["model=cnn3", "optimizer.lr=0.5"], ["model=resnet18"]]
)
def test_a_model_may_have_a_rate_of_its_own(words: list[str]) -> None:
    from attnlab.config.compose import compose

    rates = {"model=cnn3": 0.01, "optimizer=adamw": 0.001, "optimizer.lr=0.5": 0.5, "model=resnet18": 0.1}
    assert compose(words).full["optimizer"]["lr"] == rates[words[-1]]
