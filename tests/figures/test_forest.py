"""Rows against their baseline as a picture: what is drawn where, and what cannot be drawn."""

import dataclasses
from pathlib import Path

import pytest

from attnlab.config.targets import ConfigError
from attnlab.figures import forest as drawing
from attnlab.figures.forest import forest
from attnlab.figures.style import BLUE, QUIET, VERMILION
from attnlab.tables.model import Cell, Metric, Paired, Table
from attnlab.tables.request import read_request

METRICS = {"accuracy": Metric("test/acc", "accuracy, %", "max"), "NLL": Metric("test/nll", "NLL", "min", 1)}
DIFFERENCES = {  # of the accuracy and the NLL: low, mean, high
    "up": ((1, 2, 3), (0.1, 0.2, 0.3)),
    "down": ((-3, -2, -1), (-0.3, -0.2, -0.1)),
    "either": ((-1, 1, 3), (-0.3, 0.0, 0.3)),
    "flat": ((-0.5, 0, 0.5), (-0.1, 0.0, 0.1)),
    "astray": ((-900, -300, -100), (-90, 0, 90)),
}


def table(baseline: str | None = "none") -> Table:
    cells = {}
    for row in ("none", *DIFFERENCES, "one seed"):
        for k, column in enumerate((*METRICS, "parameters")):
            paired = None
            if row in DIFFERENCES and column in METRICS:
                low, middle, high = DIFFERENCES[row][k]
                paired = Paired(3, middle, (low, high), 0.04)
            elif row != "none":
                paired = Paired(1 if row == "one seed" else 3, 5.0, None, None)
            cells[row, column] = Cell(row, column, (), 3, 1.0, 0.1, None, None, None, "not published", paired)
    rows, columns = ("none", *DIFFERENCES, "one seed"), (*METRICS, "parameters")
    return Table("catalogue", "Catalogue", "", rows, columns, METRICS["accuracy"], cells, baseline, (), "", None, METRICS)


def test_a_line_a_row_in_the_colour_of_what_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    panels, place = [], drawing.axes_at
    monkeypatch.setattr(drawing, "axes_at", lambda *given, **options: panels.append(place(*given, **options)) or panels[-1])
    assert forest(table(), path=tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert [axes.get_title() for axes in panels] == ["accuracy, %", "NLL"]  # equal parameters have no interval
    names = list(DIFFERENCES)
    for k, axes in enumerate(panels):
        lines = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_ydata()[0] == line.get_ydata()[1]]
        assert [line.get_ydata()[0] for line in lines] == list(range(len(names)))  # the baseline and what has one seed are left out
        better, worse = (BLUE, VERMILION) if k == 0 else (VERMILION, BLUE)
        assert [line.get_color() for line in lines[:4]] == [better, worse, QUIET, QUIET]
        assert tuple(lines[2].get_xdata()) == DIFFERENCES["either"][k][::2]
    left, right = panels[0].get_xlim()
    assert -5 < left < -3 and 3 < right < 5  # one row astray does not stretch the axis for all
    marks = [[(line.get_marker(), line.get_ydata()[0]) for line in axes.lines if line.get_marker() in "<>"] for axes in panels]
    assert marks == [[("<", 4)], [("<", 4), (">", 4)]]
    assert [sum(line.get_marker() == "o" for line in axes.lines) for axes in panels] == [4, 5]  # no point where it is not on the axis


def test_what_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format=forest draws differences to a baseline, and catalogue has none"):
        forest(table(None), path=tmp_path / "a.png")
    empty = table()
    empty.cells.update({key: dataclasses.replace(cell, paired=None) for key, cell in empty.cells.items()})
    with pytest.raises(ValueError, match="no row has two seeds in common with none yet"):
        forest(empty, path=tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
    assert read_request(["table=smoke", "format=forest", "out=a.svg"]).format == "forest"
    with pytest.raises(ConfigError, match=r"format=forest: needs out=FILE.png"):
        read_request(["table=smoke", "format=forest", "out=a.html"])
