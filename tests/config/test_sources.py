"""Hydra's files are parsed once in a process, and never read as they were before."""

from pathlib import Path

import pytest
import yaml

from attnlab.config.compose import compose
from attnlab.config.targets import ConfigError

WORDS = ["model=resnet18", "logger=none"]


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that OmegaConf parsed."""
    from omegaconf import OmegaConf

    found, real = [], OmegaConf.load
    monkeypatch.setattr(OmegaConf, "load", lambda file: found.append(Path(file.name).name) or real(file))
    return found


def test_a_file_is_parsed_once(parsed: list[str]) -> None:
    first = compose([*WORDS, "attention=rect"])
    parsed.clear()
    assert compose([*WORDS, "attention=rect"]) == first and parsed == []


def test_a_file_that_changed_is_read_anew(tmp_path: Path) -> None:
    file = tmp_path / "experiment" / "mine.yaml"
    file.parent.mkdir()
    words = [*WORDS, f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine"]
    for lr in (0.25, 0.5):
        file.write_text(f"# @package _global_\noptimizer:\n  lr: {lr}\n")
        assert compose(words).full["optimizer"]["lr"] == lr
    file.write_text("# @package _global_\nlogger: [")
    with pytest.raises(ConfigError, match="cannot be read"):
        compose(words)
    file.unlink()
    with pytest.raises(ConfigError, match="experiment=mine: there is no such experiment"):
        compose(words)


def test_the_first_of_two_folders_counts_from_the_moment_it_is_there(tmp_path: Path) -> None:
    for name, lr in (("b", 0.5), ("a", 0.25)):
        folder = tmp_path / name / "experiment"
        (tmp_path / "a").mkdir(exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mine.yaml").write_text(f"# @package _global_\noptimizer:\n  lr: {lr}\n")
        found = compose([*WORDS, f"hydra.searchpath=[file://{tmp_path}/a,file://{tmp_path}/b]", "experiment=mine"])
        assert found.full["optimizer"]["lr"] == lr


def test_one_composition_leaves_the_next_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "experiment").mkdir()
    content = {"optimizer": {"lr": 0.25}, "data": {"crop": 4}}
    (tmp_path / "experiment" / "mine.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(content)}")
    words = [*WORDS, f"hydra.searchpath=[file://{tmp_path}]", "experiment=mine", "attention=rect"]
    before = compose(words)
    changed = compose([*words, "optimizer.lr=0.5", "data.crop=2", "attention.rect.at=layer1", "paths.outputs=elsewhere", "hydra.mode=RUN"])
    assert changed.full["optimizer"]["lr"] == 0.5 and changed.full["data"]["crop"] == 2
    assert compose(words) == before
