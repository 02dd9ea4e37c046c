"""teacher=RUN: one teacher is one identity by whatever word, and a word that names none is one line."""

import json
from pathlib import Path

import pytest

from attnlab.config.compose import compose
from attnlab.config.targets import ConfigError
from attnlab.config.teacher import find_teacher, trained

RUN = "digits-resnet18-s0-3fa9c1d2"


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    """A finished run of training 1a2b3c4d, an interrupted one, and a result.json that is none."""
    results = {
        RUN: {"status": "finished", "training": "1a2b3c4d", "command": "python -m attnlab.train"},
        "digits-resnet34-s0-3fb00000": {
            "status": "interrupted",
            "training": "2a2b3c4d",
            "command": "python -m attnlab.train seed=7",
        },
        "digits-cnn3-s0-00000001": {"status": "finished", "training": "../../etc"},
    }
    for name, result in results.items():
        (tmp_path / "runs" / name).mkdir(parents=True)
        whole = {"run_id": name, "config": {}, "metrics": {}, "seed": 0, **result}
        (tmp_path / "runs" / name / "result.json").write_text(json.dumps(whole))
    (tmp_path / "runs" / "digits-cnn3-s1-00000002").mkdir()
    (tmp_path / "runs" / "digits-cnn3-s1-00000002" / "result.json").write_text("[" * 10)
    return tmp_path


def plan(outputs: Path, *words: str):
    return compose(["distillation=kd", f"paths.outputs={outputs}", *words])


def test_one_teacher_by_id_by_address_by_folder_and_by_training_is_one_address(outputs: Path) -> None:
    folder = outputs / "runs" / RUN
    plans = [plan(outputs, f"teacher={word}") for word in (RUN, "3fa9", folder, "training:1a2b3c4d")]
    (outputs / "link").symlink_to(folder)
    plans += [plan(outputs, f"teacher={outputs / 'link'}"), plan(outputs / "elsewhere", f"teacher={folder}")]
    assert len({one.address for one in plans}) == len({one.training for one in plans}) == 1
    assert {one.full["teacher"] for one in plans} == {one.short["teacher"] for one in plans} == {"training:1a2b3c4d"}
    assert plans[0].teacher == plans[2].teacher == str(folder) and plans[3].teacher is None


def test_another_teacher_is_another_run_and_none_is_todays(outputs: Path) -> None:
    addresses = {plan(outputs, f"teacher=training:{word}").address for word in ("1a2b3c4d", "1a2b3c4e")}
    assert len(addresses) == 2
    alone, none = compose([]), compose(["teacher=null"])
    assert alone.full["teacher"] is None and alone.address == none.address != compose(["teacher=training:1a2b3c4d"]).address


def test_weights_enter_by_their_content(outputs: Path) -> None:
    one, same, other = (outputs / name for name in ("one.pt", "same.safetensors", "other.pt"))
    for path, text in ((one, "a"), (same, "a"), (other, "b")):
        path.write_text(text)
    addresses = [plan(outputs, f"teacher={path}").address for path in (one, same, other)]
    assert addresses[0] == addresses[1] != addresses[2]
    assert plan(outputs, f"teacher={one}").full["teacher"].startswith("weights:")


def test_a_training_is_found_where_it_is_announced_or_by_its_record(outputs: Path) -> None:
    folder = outputs / "runs" / RUN
    assert trained("1a2b3c4d", outputs) == folder
    assert trained("2a2b3c4d", outputs) is trained("77777777", outputs) is None  # interrupted; never trained
    announced = outputs / "runs" / ".trainings" / "1a2b3c4d"
    announced.parent.mkdir()
    for name in (RUN, "gone-00000009", "../../x", ""):
        announced.write_text(name)
        assert trained("1a2b3c4d", outputs) == folder


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("digits-resnet18-s1-3fa9c1d2", "there is no such run in .*runs, folder or file; nearest: digits-resnet18-s0-3fa9c1d2"),
        ("3f", "digits-resnet18-s0-3fa9c1d2, digits-resnet34-s0-3fb00000 begin like that; give more of one"),
        ("3fb", r"is not finished \(interrupted\); train it first: python -m attnlab.train seed=7"),
        ("training:1a2b", "must be training: and eight hex digits"),
        ("00000001", "holds no training address"),
        ("00000002", "is no finished run; result.json is damaged"),
        ("README.md", "is no file of weights"),
        ("configs", "is no finished run; it has no result.json"),
    ],
)
def test_one_line_for_what_is_no_teacher(outputs: Path, word: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"teacher={word}: .*{message}") as error:
        find_teacher(word, outputs=outputs)
    assert "\n" not in str(error.value)


def test_no_runs_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run is there"):
        find_teacher("abc", outputs=tmp_path)
