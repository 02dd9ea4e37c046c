"""No wrong number in silence: images that have changed under a run, a record in which something has."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from attnlab.config.result import read_result
from attnlab.config.targets import ConfigError
from attnlab.data.two_moons import TwoMoons
from attnlab.evaluate import evaluate
from tests.conftest import POINTS


@pytest.fixture
def change(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """`change("train")` turns one label of a split into another, from then on."""
    load = TwoMoons.load

    def changed(name: str) -> None:
        def other(self: TwoMoons, split: str):
            images = load(self, split)
            if split == name:
                labels = images.labels.clone()
                labels[0] = 1 - labels[0]
                return dataclasses.replace(images, labels=labels)
            return images

        monkeypatch.setattr(TwoMoons, "load", other)

    return changed


def test_a_resume_looks_at_its_images(run: Callable[..., dict], change: Callable[[str], None]) -> None:
    first = run(base=POINTS)
    (first["folder"] / "result.json").unlink()
    again = run(base=POINTS)  # the same images: goes on, and finds the same
    assert again["metrics"] == first["metrics"] and again["data"]["digests"] == first["data"]["digests"]
    (first["folder"] / "result.json").unlink()
    change("train")
    old = first["data"]["digests"]["train"]
    with pytest.raises(
        ConfigError, match=rf"data: the train images are not those of .*last.ckpt \(digest {old[:12]}, now .*force=true"
    ) as caught:
        run(base=POINTS)
    assert "\n" not in str(caught.value) and (first["folder"] / "last.ckpt").exists()
    afresh = run("force=true", base=POINTS)
    assert afresh["status"] == "finished" and afresh["data"]["digests"]["train"] != old


def test_an_evaluation_says_that_the_images_are_others(run: Callable[..., dict], change: Callable[[str], None]) -> None:
    first = run(base=POINTS)
    assert "warnings" not in json.loads(evaluate([first["folder"]], []).read_text())
    change("test")
    result = json.loads(evaluate([first["folder"]], []).read_text())
    assert len(result["warnings"]) == 1 and f"images are not those of {first['run_id']}: test (" in result["warnings"][0]
    other = json.loads(evaluate([first["folder"]], ["data.noise=0.3"]).read_text())
    assert "warnings" not in other  # asked for


def test_a_flipped_digit_in_a_record_is_noticed(run: Callable[..., dict]) -> None:
    path: Path = run("trainer.max_epochs=1", base=POINTS)["folder"] / "result.json"
    text = path.read_text()
    assert read_result(path.parent).status == "finished"
    path.write_text(json.dumps(json.loads(text)))  # another layout of the same contents
    assert read_result(path.parent).status == "finished"
    digits = [position for position, letter in enumerate(text) if letter.isdigit()]
    for position in digits[::29]:
        path.write_text(text[:position] + str((int(text[position]) + 1) % 10) + text[position + 1 :])
        found = read_result(path.parent)
        assert found.status == "broken" and not found.result, text[position - 40 : position + 5]
    result = json.loads(text)
    del result["digest"]
    path.write_text(json.dumps(result))  # of a version without digests
    assert read_result(path.parent).status == "finished"
