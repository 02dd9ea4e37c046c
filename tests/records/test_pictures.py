"""The pictures of a run and their kinds, as result.json states them."""

from pathlib import Path
from typing import Any

import pytest

from attnlab.records.pictures import Picture, pictures_of


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    for name in ("run/figures/attention_rect_at_layer3.png", "run/figures/reliability.png", "run/maps/one.png", "other.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return folder


def test_kinds_are_those_of_the_record(folder: Path) -> None:
    stated = {"figures/attention_rect_at_layer3.png": "attention", "maps/one.png": "explanation", "figures/gone.png": "curves"}
    attention, reliability, one = pictures_of(folder, {"pictures": stated})
    assert attention == Picture(folder / "figures" / "attention_rect_at_layer3.png", "attention") and attention.subject == "rect at layer3"
    assert reliability == Picture(folder / "figures" / "reliability.png", ""), "a file's name is no statement"
    assert one == Picture(folder / "maps" / "one.png", "explanation") and one.subject == ""


@pytest.mark.parametrize("stated", [None, [], {"figures/reliability.png": "beauty"}, {"figures/reliability.png": ["attention"]}])
def test_without_a_kind_a_picture_is_a_file(folder: Path, stated: Any) -> None:
    found = pictures_of(folder, {} if stated is None else {"pictures": stated})
    assert [(picture.path.name, picture.kind) for picture in found] == [("attention_rect_at_layer3.png", ""), ("reliability.png", "")]
    assert [picture.subject for picture in found] == ["attention rect at layer3", "reliability"]


@pytest.mark.parametrize("name", ["../other.png", "/etc/passwd", "figures/../../other.png", "figures", "", "a\0b.png"])
def test_a_record_leads_to_no_file_outside_its_folder(folder: Path, name: str) -> None:
    stated = {name: "attention", str(folder.parent / "other.png"): "attention"}
    paths = [picture.path for picture in pictures_of(folder, {"pictures": stated})]
    assert len(paths) == 2 and all(path.parent == folder / "figures" for path in paths)
