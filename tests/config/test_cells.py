"""Cells of a table, put together from few compositions: what each would be by itself."""

import json

import hydra
import pytest

from attnlab.config.cells import compose_cells
from attnlab.config.compose import compose
from attnlab.config.targets import ConfigError

SMALL = ["model=resnet18", "model.width=8", "logger=none"]


@pytest.fixture
def composed(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What Hydra composed."""
    real, calls = hydra.compose, []
    monkeypatch.setattr(hydra, "compose", lambda name, overrides, **options: calls.append(overrides) or real(name, overrides, **options))
    return calls


def test_rows_and_columns_are_composed_once(composed: list[list[str]]) -> None:
    rows, columns = ("none", "rect", "[se,rect]"), ("none", "cutout", "[cutout,maxdropout]")
    words = [*SMALL[1:], "regularizer.cutout.length=4", "attention.rect.at=layer1"]
    cells = [[*words, f"attention={row}", f"regularizer={column}"] for row in rows[1:] for column in columns[1:]]
    plans = compose_cells(cells, [0, 3])
    assert len(composed) == 5  # what is common with `logger=none`, and a choice each where another word says something of its group
    for cell, pair in zip(cells, plans, strict=True):
        assert pair == [compose([*cell, f"seed={seed}"]) for seed in (0, 3)]


def test_a_row_that_nothing_else_speaks_of_costs_no_composition(composed: list[list[str]]) -> None:
    rows = ("attention=rect", "attention=[se,rect]", "attention=[rect,se]", "regularizer=cutout", "loss=gccs", "ood=[knn,msp]")
    words = ["experiment=rect/cluttered_digits", "data.canvas=24", "model.width=8"]
    plans = compose_cells([[*words, row] for row in rows], [0, 3])
    assert len(composed) == 1
    for row, pair in zip(rows, plans, strict=True):
        for plan, seed in zip(pair, (0, 3), strict=True):
            alone = compose([*words, row, f"seed={seed}"])
            assert plan == alone and json.dumps(plan.full) == json.dumps(alone.full)  # in one order: components are placed in it


@pytest.mark.parametrize(
    ("cell", "times"),
    [
        (["model=cnn3", "optimizer=sgd", "attention=se"], 1),  # a learning rate of their own goes with the first two
        (["attention=se", "attention=rect", "regularizer=cutout"], 1),  # Hydra says what is wrong, or which it takes
        (["experiment=advanced_dropout/cifar10", "regularizer=none", "loss=large_margin"], 2),
        (["experiment=large_margin/cifar10", "loss=ce", "regularizer=cutout", "data=digits"], 3),
        (["attention=se", "regularizer=cutout", "data.split_seed=${seed}"], 1),
        (["attention=se", "regularizer=cutout", "data.split_seed=${data.seed}"], 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_depends_on_more_than_its_group(cell: list[str], times: int, composed: list[list[str]]) -> None:
    try:
        expected = [compose([*cell, f"seed={seed}"]) for seed in (0, 2)]
    except ConfigError as error:
        with pytest.raises(ConfigError) as ours:
            compose_cells([cell], [0, 2])
        assert str(ours.value) == str(error)
        return
    composed.clear()
    assert compose_cells([cell], [0, 2]) == [expected] and len(composed) == times


def test_a_teacher_costs_no_composition(composed: list[list[str]]) -> None:
    words = [*SMALL[:2], "regularizer=cutout", "distillation=kd"]
    one, two = cells = [[*words, f"teacher=training:{address}"] for address in ("0a1b2c3d", "12345678")]
    plans = compose_cells(cells, [0])
    assert len(composed) == 1 and [plan for (plan,) in plans] == [compose([*one, "seed=0"]), compose([*two, "seed=0"])]
    composed.clear()
    assert compose_cells([[*words, "teacher=training:0a1b2c3d", "teacher=training:12345678"]], [0])[0][0].full == plans[1][0].full


def test_a_mistake_is_the_same_line() -> None:
    for cell in (["attention=recta", "regularizer=cutout"], ["attention=se", "regularizer=cutout", "attention.rect.at=layer1"]):
        with pytest.raises(ConfigError) as alone:
            compose([*cell, "seed=0"])
        with pytest.raises(ConfigError) as ours:
            compose_cells([cell], [0])
        assert str(ours.value) == str(alone.value)
