"""A table as a picture: what is drawn where, and what cannot be drawn."""

from pathlib import Path

import pytest

from attnlab.config.targets import ConfigError
from attnlab.figures import tradeoff as drawing
from attnlab.figures.tradeoff import tradeoff
from attnlab.tables.model import Cell, Metric, Table
from attnlab.tables.request import read_request

METRIC = Metric("test/acc", "accuracy, %", "max")
COST = {"parameters": Metric("cost/parameters", "parameters", "min", 1), "latency": Metric("cost/latency_ms", "ms", "min", 1)}
NUMBERS = {
    "whole": {"accuracy": (90, 1), "parameters": (8000, 0), "latency": (2, 0.1)},
    "half": {"accuracy": (85, 2), "parameters": (1000, 10), "latency": (1.5, 0.1)},
    "not run": {"accuracy": (None, None), "parameters": (None, None), "latency": (None, None)},
    "one seed": {"accuracy": (80, None), "parameters": (900, None), "latency": (None, None)},
}


def table(*columns: str) -> Table:
    cells = {
        (row, column): Cell(row, column, (), 3, *NUMBERS[row][column], None, None, None, "not published", None)
        for row in NUMBERS
        for column in columns
    }
    return Table("costs", "Costs", "", tuple(NUMBERS), columns, METRIC, cells, None, (), "", None, COST)


def test_a_panel_a_column_and_a_point_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panels, place = [], drawing.axes_at
    monkeypatch.setattr(drawing, "axes_at", lambda *given, **options: panels.append(place(*given, **options)) or panels[-1])
    path = tradeoff(table("accuracy", "parameters", "latency"), path=tmp_path / "a.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    points = [[tuple(map(float, bars[0].get_xydata()[0])) for bars in axes.containers] for axes in panels]
    assert points == [[(8000, 90), (1000, 85), (900, 80)], [(2, 90), (1.5, 85)]]
    assert [axes.get_xscale() for axes in panels] == ["log", "linear"]
    ticks = [text.get_text() for text in panels[0].get_xticklabels(which="both")]
    assert "1000" in ticks and all(tick.isdigit() for tick in ticks if tick)  # plain numbers: nothing here sets formulas
    assert [[text.get_text() for text in axes.texts] for axes in panels] == [["1", "2", "4"], ["1", "2"]]


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="first column against the others, and costs has one column"):
        tradeoff(table("accuracy"), path=tmp_path / "a.png")
    empty = table("accuracy", "latency")
    empty.cells.update({key: Cell(*key, (), 0, *[None] * 5, "missing", None) for key in empty.cells})
    with pytest.raises(ValueError, match="no row has a number in accuracy and in another column yet"):
        tradeoff(empty, path=tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
    assert read_request(["table=smoke", "out=a.pdf"]).format == "plot"
    for words in (["format=plot"], ["format=plot", "out=a.txt"]):
        with pytest.raises(ConfigError, match=r"format=plot: needs out=FILE.png"):
            read_request(["table=smoke", *words])
