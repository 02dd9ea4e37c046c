"""--help: every key of what is chosen, told without importing a component; one topic in full."""

import inspect
import sys
from pathlib import Path

import pytest

from attnlab.config.described import described
from attnlab.config.groups import GROUPS, having
from attnlab.config.help import help_text
from attnlab.config.signatures import _hints, describe, parameters
from attnlab.config.targets import ConfigError, config_dir, group_choices, locate


def targets() -> list[str]:
    import re

    found = (
        re.findall(r"_target_: *(attnlab[\w.]+)", path.read_text()) for group in GROUPS for path in (config_dir() / group).rglob("*.yaml")
    )
    return sorted({target for one in found for target in one})


@pytest.mark.parametrize("target", targets())
def test_the_source_says_what_the_signature_says(target: str) -> None:
    """Names and defaults read from the file are those of the imported class, and so are types in words."""
    found, known = described(target), parameters(locate(target))
    known = {name: one for name, one in known.items() if one.kind is not inspect.Parameter.VAR_KEYWORD}
    assert set(found.parameters) == set(known) and found.doc
    hints = _hints(locate(target))
    for name, parameter in known.items():
        told = found.parameters[name]
        assert (told.default is None) == (parameter.default is inspect.Parameter.empty), name
        if hints.get(name) in (int, float, bool, str):
            assert told.type == describe(hints[name])


def test_every_key_of_what_is_chosen_is_there() -> None:
    text = help_text(["--help", "attention=rect", "callback=ema"])
    for key in (
        "trainer.compile",
        "trainer.threads",
        "data.split_seed",
        "attention.rect.at",
        "attention.rect.equivariance_weight",
        "paths.outputs",
    ):
        assert f"\n  {key} " in text
    assert "\n  callback.ema.decay" in text and "0.999" in text and "gradcam_pp" in text
    assert max(map(len, text.splitlines())) <= 160


def test_overrides_are_in_it() -> None:
    text = help_text(["model=timm", "--help", "model.name=resnet34", "trainer=cpu"])
    assert "\nmodel=timm" in text and "\n  model.name " in text and "resnet34" in text and "\ntrainer=cpu" in text


@pytest.mark.parametrize(
    "topic, told",
    [
        ("attention", "\n  rect "),
        ("attention.rect", "arXiv 2503.10875"),
        ("attention.rect.sharpness", "attention.rect.sharpness  10.0"),
        ("trainer.compile", "auto | off | default"),
        ("loss.large_margin", "loss.delta_"),
        ("seed", "of everything random"),
        ("paths", "root of everything"),
    ],
)
def test_a_topic(topic: str, told: str) -> None:
    assert told in help_text(["--help", topic])


@pytest.mark.parametrize(
    "topic, message",
    [
        ("atention", "--help atention: there is no such group or key; nearest: attention"),
        ("attention.rekt", "--help attention.rekt: there is no such choice or key of attention; nearest: rect"),
        ("attention.rect.sharp", "--help attention.rect.sharp: attention.rect has no key sharp; nearest: sharpness"),
    ],
)
def test_a_topic_that_there_is_not(topic: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        help_text(["--help", topic])
    assert str(error.value).startswith(message)


def test_choices_have_a_page() -> None:
    for group in having(several=True):
        for choice in group_choices(group)[:2]:
            if choice not in ("none", "cosine_head", "prototype_head"):
                assert f"{group}.{choice}" in help_text(["--help", f"{group}.{choice}"])


def test_version_and_places(capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    import attnlab
    from attnlab import evaluate, runs, table
    from attnlab.sweeps.cli import answered

    assert not answered(["model=resnet18"])
    for command in (lambda: answered(sys.argv[1:]), evaluate.main, runs.main, table.cli):
        monkeypatch.setattr(sys, "argv", ["attnlab", "--version"])
        command()
        assert capsys.readouterr().out == f"attnlab {attnlab.__version__}\n"
    answered(["places", "model=resnet18", "model.width=4"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == ["place", "module", "takes", "gives"] and ["fc", "Linear", "32", "10"] in lines
    assert ["layer2", "Sequential", "4", "x", "16", "x", "16", "8", "x", "8", "x", "8"] in lines


def test_the_scripts_of_the_package_are_there() -> None:
    import importlib
    import tomllib

    scripts = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {"attnlab-train", "attnlab-table", "attnlab-runs", "attnlab-evaluate"}
    for target in scripts.values():
        module, _, name = target.partition(":")
        assert callable(getattr(importlib.import_module(module), name))
