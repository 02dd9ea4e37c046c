"""Tuned tables: every cell under every value, chosen by validation images and nothing else, when all of its runs are there."""

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from attnlab import table as command
from attnlab.config.targets import ConfigError
from attnlab.tables.fill import fill, wanted
from attnlab.tables.model import Table
from attnlab.tables.spec import Spec, read_spec
from attnlab.tables.todo import plan_text, todo
from attnlab.tables.views import text as table_text
from tests.tables.test_table import COMMON, TREE, put

RATES = (0.01, 0.03, 0.1)
TUNE = {"over": {"optimizer.lr": list(RATES)}}


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def written(tmp_path: Path, **changes: Any) -> str:
    tree = {**TREE, "common": [*COMMON, "data.val=0.2"], "rows": {"plain": [], "narrow": ["model.width=4"]}, "published": {}, "tune": TUNE}
    path = tmp_path / "moons.yaml"
    path.write_text(yaml.safe_dump({**tree, **changes}, sort_keys=False))
    return str(path)


class Moons:
    """A tuned table and its records, put by hand."""

    def __init__(self, tmp_path: Path, **changes: Any) -> None:
        self.spec: Spec = read_spec(written(tmp_path, **changes))
        self.outputs = tmp_path / "outputs"
        self.cells = wanted(self.spec, (), self.spec.seeds, outputs=self.outputs)[0]

    def put(self, judged: Callable[[str, float, int], float | None], tested: Callable[[str, float, int], float]) -> None:
        """judged(row, rate, seed): val/acc, None: the run failed; tested: test/acc."""
        for cell in self.cells:
            for plan in cell.plans:
                place = cell.row.label, plan.full["optimizer"]["lr"], plan.full["seed"]
                value = judged(*place)
                error = {"stage": "fit", "kind": "ValueError", "message": "the loss is not finite"}
                metrics = {"val/acc": value, "test/acc": tested(*place)}
                put(self.outputs, plan, **({"metrics": metrics} if value is not None else {"status": "failed", "error": error}))

    def table(self) -> Table:
        return fill(self.spec, outputs=self.outputs)[0]

    def todo(self) -> list[Any]:
        table, cells, _ = fill(self.spec, outputs=self.outputs)
        return todo(table, cells)


def test_validation_images_choose_and_test_images_do_not(tmp_path: Path) -> None:
    moons = Moons(tmp_path)
    assert [len(cell.plans) for cell in moons.cells] == [9] * 4 and len(moons.todo()) == 36
    best = {"plain": 0.03, "narrow": 0.1}
    # test images would have chosen 0.01 everywhere; seed 2 alone would have chosen otherwise, too
    moons.put(
        lambda row, rate, seed: 0.8 + 0.05 * (rate == best[row]) + (0.06 if seed == 2 and rate == 0.01 else 0.0),
        lambda row, rate, seed: 1 - rate - 0.001 * seed,
    )
    table = moons.table()
    for row, rate in best.items():
        for column in table.columns:
            cell = table.cells[row, column]
            assert cell.chosen == (f"optimizer.lr={rate}",) and cell.n == len(cell.runs) == 3 and len(cell.others) == 6
            assert cell.mean == pytest.approx(100 * rate + 0.1)
            assert {f"optimizer.lr={rate}" in run.overrides for run in cell.runs} == {True}
    assert table.cells["narrow", "noise .1"].paired.difference == pytest.approx(7.0)
    assert not moons.todo()
    texts = [note.text for note in table.notes if note.kind == "tuned"]
    assert texts[0].endswith("by the mean of val/acc over its seeds: optimizer.lr 0.01, 0.03, 0.1; 3 x 3 runs a cell")
    assert texts[1:3] == ["chosen optimizer.lr=0.03: plain", "chosen optimizer.lr=0.1: narrow"]
    assert texts[3] == "at an end of the range of optimizer.lr, beyond which it might be better: narrow" and len(texts) == 4
    assert "seeds: 3 asked; cells have 3" in [note.text for note in table.notes]
    rows = list(csv.DictReader(io.StringIO(table_text.to_csv(table))))
    assert [row["chosen"] for row in rows] == ["optimizer.lr=0.03"] * 2 + ["optimizer.lr=0.1"] * 2


def test_less_loss_is_better(tmp_path: Path) -> None:
    moons = Moons(tmp_path, tune={**TUNE, "by": "val/nll"})
    for cell in moons.cells:
        for plan in cell.plans:
            rate = plan.full["optimizer"]["lr"]
            put(moons.outputs, plan, metrics={"val/nll": rate, "val/acc": rate, "test/acc": 0.9})
    assert {cell.chosen for cell in moons.table().cells.values()} == {("optimizer.lr=0.01",)}


def test_nothing_is_chosen_before_all_are_there(tmp_path: Path) -> None:
    moons = Moons(tmp_path)
    moons.put(lambda row, rate, seed: 0.8 + rate, lambda row, rate, seed: 0.9)
    (late,) = (plan for plan in moons.cells[0].plans if plan.full["optimizer"]["lr"] == 0.01 and plan.full["seed"] == 1)
    (moons.outputs / "runs" / late.run_id / "result.json").unlink()
    table = moons.table()
    cell = table.cells["plain", "noise .1"]
    assert cell.mean is None and not cell.chosen and [run.address for run in cell.runs] == [late.address] and len(cell.others) == 8
    assert cell.verdict == "missing" and "1 missing" in table_text.to_text(table)
    assert "not chosen yet: plain (noise .1)" in [note.text for note in table.notes]
    assert table.cells["narrow", "noise .1"].mean is not None and table.cells["narrow", "noise .1"].paired is None
    (job,) = moons.todo()
    assert job.run.address == late.address and "4 cells" not in plan_text(table, [job], fill(moons.spec, outputs=moons.outputs)[2])


def test_a_value_under_which_a_run_fails_is_not_chosen(tmp_path: Path) -> None:
    moons = Moons(tmp_path)
    moons.put(lambda row, rate, seed: None if row == "narrow" or (rate, seed) == (0.1, 1) else 0.8 + rate, lambda *place: 0.9)
    table = moons.table()
    assert table.cells["plain", "noise .1"].chosen == ("optimizer.lr=0.03",)
    assert table.cells["narrow", "noise .1"].mean is None and len(table.cells["narrow", "noise .1"].runs) == 9
    assert "not chosen since a run failed, optimizer.lr=0.1: plain, narrow" in [note.text for note in table.notes]
    assert len(moons.todo()) == 2 * 9 + 2  # all that failed are tried again


def test_every_combination(tmp_path: Path) -> None:
    tune = {"over": {"optimizer.lr": [0.01, 0.1], "optimizer.nesterov": [True, False], "model.width": [8, 16]}}
    moons = Moons(tmp_path, tune=tune, rows={"plain": [], "clipped": ["trainer.gradient_clip=1"]})
    assert [len({plan.address for plan in cell.plans}) for cell in moons.cells] == [24, 24, 24, 24]
    assert moons.spec.tune.tried()[1] == ("optimizer.lr=0.01", "optimizer.nesterov=true", "model.width=16")


def test_a_tuned_table_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path, columns={"noise .1": ["trainer.max_epochs=20"]}, seeds=[0], tune={"over": {"optimizer.lr": [1.0e-6, 0.1]}})
    words = [f"table={path}", f"paths.outputs={tmp_path / 'out'}", "rows=[plain]"]
    assert command.main([*words, "action=run"]) == 0
    assert len(list((tmp_path / "out" / "runs").glob("*/result.json"))) == 2
    said = capsys.readouterr().out
    assert "chosen optimizer.lr=0.1: plain" in said and "2 x 1 runs a cell" in " ".join(said.split()), said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tune": {"over": {"optimizer.lr": [0.1]}}}, "tune.over.optimizer.lr: must be a list of two or more different values"),
        ({"tune": {"over": {"optimizer.lr": 0.1}}}, "tune.over.optimizer.lr: must be a list of two or more different values"),
        ({"tune": {"over": {}}}, "tune.over: must be keys with the values to try"),
        ({"tune": {"ovr": {}}}, "tune: unknown key 'ovr'; nearest: over"),
        (
            {"tune": {**TUNE, "by": "test/acc"}},
            "tune.by=test/acc: test images are not for tuning by; take val/acc",
        ),
        ({"tune": {"over": {"seed": [0, 1]}}}, "tune.over: 'seed=0' is no override of a cell"),
        ({"tune": {"over": {"allow_targets": ["a", "b"]}}}, "tune.over: 'allow_targets=a': a table may not say whose code runs"),
        ({"rows": {"plain": ["optimizer.lr=0.5"]}}, "rows.plain: 'optimizer.lr=0.5' gives a value to what this table tunes"),
        ({"rows": {"plain": [], "student": ["distillation=kd", "teacher=@plain"]}}, "rows.student: teacher=@...: a tuned table has no row"),
    ],
)
def test_a_mistake_is_one_line(changes: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        read_spec(written(tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_what_composing_shows(tmp_path: Path) -> None:
    without = read_spec(written(tmp_path, common=COMMON))
    with pytest.raises(ConfigError, match=r"plain, noise \.1: tuned by val/acc, it needs validation images: add data.val=0.1 to `common`"):
        fill(without, outputs=tmp_path)
    with pytest.raises(ConfigError, match=r"overrides: 'optimizer.lr=1' gives a value to what this table tunes"):
        fill(read_spec(written(tmp_path)), outputs=tmp_path, overrides=["optimizer.lr=1"])
    table = fill(read_spec(written(tmp_path)), outputs=tmp_path, overrides=["data.batch_size=8"])[0]
    assert table.variant == "data.batch_size=8" and len({run.address for run in table.cells["plain", "noise .1"].runs}) == 9
