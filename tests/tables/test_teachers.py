"""teacher=@ROW in a table: the row's run of the same column and seed, which is run first."""

import json
from pathlib import Path

import pytest

from attnlab.config.compose import compose
from attnlab.config.targets import ConfigError
from attnlab.tables.fill import fill
from attnlab.tables.spec import read_spec
from attnlab.tables.teachers import compose_table, waves
from attnlab.tables.todo import plan_text, todo

TABLE = """
title: distillation
metric: {key: test/acc, label: accuracy, direction: max, margin: 0.5}
common: [logger=none]
rows:
  deep student: [model=cnn3, distillation=kd, "teacher=@student of it"]
  student of it: [model=resnet18, distillation=kd, "teacher=@teacher"]
  teacher: [model=resnet34]
  alone: [model=resnet18]
columns: {digits: [data=digits], small: [data=digits, data.limit=500]}
seeds: [0, 1]
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "distilled.yaml"
    path.write_text(TABLE)
    return path


def test_a_row_follows_the_row_of_its_column_and_seed(table: Path, tmp_path: Path) -> None:
    spec = read_spec(str(table))
    filled, cells, records = fill(spec, outputs=tmp_path)
    plans = {(cell.row.label, cell.column.label): cell.plans for cell in cells}
    for column in ("digits", "small"):
        for number in (0, 1):
            teacher, student, pupil = (plans[row, column][number] for row in ("teacher", "student of it", "deep student"))
            assert student.full["teacher"] == f"training:{teacher.training}" and pupil.full["teacher"] == f"training:{student.training}"
            assert student.address == compose(student.overrides).address
    assert len({plan.address for group in plans.values() for plan in group}) == 16

    jobs = todo(filled, cells)
    order = [[jobs[index].cells[0][0] for index in wave] for wave in waves([job.plan for job in jobs])]
    assert [set(wave) for wave in order] == [{"teacher", "alone"}, {"student of it"}, {"deep student"}]
    assert f"teacher=training:{plans['teacher', 'digits'][0].training}" in plan_text(filled, jobs, records)


def test_the_tables_overrides_reach_the_teacher_too(table: Path, tmp_path: Path) -> None:
    _, cells, _ = fill(read_spec(str(table)), outputs=tmp_path, overrides=["trainer.max_epochs=3"], seeds=[0])
    plans = {(cell.row.label, cell.column.label): cell.plans[0] for cell in cells}
    assert plans["student of it", "digits"].full["teacher"] == f"training:{plans['teacher', 'digits'].training}"
    assert plans["teacher", "digits"].full["trainer"]["max_epochs"] == 3
    assert {cell.departs for cell in cells} == {("trainer.max_epochs",)}
    _, cells, variant = fill(read_spec(str(table)), outputs=tmp_path, overrides=["trainer.accelerator=cpu"], seeds=[0])
    assert {cell.departs for cell in cells} == {()} and variant  # computed elsewhere, which is no other experiment


def test_a_teacher_is_looked_for_in_the_outputs_of_the_table(tmp_path: Path) -> None:
    """By its id or the beginning of its address, in the table's overrides as in a row's own."""
    run = tmp_path / "runs" / "digits-resnet34-s0-0a1b2c3d"
    run.mkdir(parents=True)
    result = {"run_id": run.name, "status": "finished", "training": "1a2b3c4d", "metrics": {}, "config": {}, "seed": 0}
    (run / "result.json").write_text(json.dumps(result))
    path = tmp_path / "own.yaml"
    path.write_text(TABLE.partition("rows:")[0] + "rows: {follows: [distillation=kd, teacher=0a1b]}\ncolumns: {digits: []}\nseeds: [0]\n")
    for overrides in ([], [f"teacher={run.name}"]):
        _, (cell,), _ = fill(read_spec(str(path)), outputs=tmp_path, overrides=overrides, seeds=[0])
        assert cell.plans[0].full["teacher"] == "training:1a2b3c4d" and "teacher=training:1a2b3c4d" in cell.plans[0].overrides
    with pytest.raises(ConfigError, match=r"teacher=0a1b: there is no such run in .*elsewhere/runs"):
        fill(read_spec(str(path)), outputs=tmp_path / "elsewhere", seeds=[0])


def test_rows_keep_their_teachers(table: Path) -> None:
    spec = read_spec(str(table)).only(["deep student"], ["small"])
    assert [row.label for row in spec.rows] == ["deep student", "student of it", "teacher"]
    assert [row.label for row in read_spec(str(table)).only(["alone"], None).rows] == ["alone"]


def test_errors() -> None:
    cells = {("student", "a"): ["teacher=@techer"], ("teacher", "a"): []}
    with pytest.raises(ConfigError, match=r"rows.student: teacher=@techer: there is no such row; nearest: teacher"):
        compose_table(cells, [0])
    with pytest.raises(ConfigError, match="rows: student, teacher follow each other as teachers in a circle"):
        compose_table({("student", "a"): ["teacher=@teacher"], ("teacher", "a"): ["teacher=@student"]}, [0])
