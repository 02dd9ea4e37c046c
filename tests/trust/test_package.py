"""What a package that is built from a checkout holds: no file of one machine alone."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_a_local_file_is_in_no_package() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert "/configs/local" in build["exclude"]
    assert not any("force-include" in target for target in build["targets"].values())  # which takes what is excluded


def test_a_wheel(tmp_path: Path) -> None:
    """Where hatchling is installed."""
    wheel = pytest.importorskip("hatchling.builders.wheel")
    for name in ("pyproject.toml", "README.md", "attnlab/__init__.py", "configs/train.yaml", "configs/loss/ce.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    (tmp_path / "configs" / "local").mkdir()
    (tmp_path / "configs" / "local" / "default.yaml").write_text("seed: 1\n")
    names = {file.distribution_path for file in wheel.WheelBuilder(str(tmp_path)).recurse_included_files()}
    assert names == {"attnlab/__init__.py", "attnlab/configs/train.yaml", "attnlab/configs/loss/ce.yaml"}
