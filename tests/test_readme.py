"""The README's examples run as they stand."""

import re
import sys
import types
from pathlib import Path

import pytest
import torch
import yaml

README = (Path(__file__).parents[1] / "README.md").read_text()


def block(marker: str) -> str:
    found = re.search(rf"<!-- {marker} -->\n```\w+\n(.*?)```", README, re.S)
    assert found, marker
    return found[1]


def test_the_component_of_the_readme_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    from attnlab.config.build import build
    from attnlab.config.compose import compose
    from attnlab.network import Network

    mine, gate = types.ModuleType("mine"), types.ModuleType("mine.gate")
    exec(compile(block("example: component"), "gate.py", "exec"), gate.__dict__)
    monkeypatch.setitem(sys.modules, "mine", mine)
    monkeypatch.setitem(sys.modules, "mine.gate", gate)
    node = yaml.safe_load(block("example: yaml"))
    backbone = build(compose(["model.width=4", "logger=none"]).full["model"])(num_classes=10, shape=(1, 16, 16))
    network = Network(backbone, build(node, allow=["mine"]), shape=(1, 16, 16))
    assert [placement.place for placement in network.placed.placements] == ["layer1", "layer2", "layer3", "layer4"]
    network(torch.randn(2, 1, 16, 16)).logits.sum().backward()
    assert all(component.logit.grad.any() for _, component in network.placed.components())


def test_the_own_model_of_the_readme_runs() -> None:
    names: dict = {}
    exec(compile(block("example: own"), "own.py", "exec"), names)
    model = names["model"].eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 224, 224)).shape == (1, 1000)
    assert [name for name in model.state_dict() if name.startswith("placed.rect@layer3")]


@pytest.mark.parametrize("line", [line for line in README.replace("\\\n", "").splitlines() if line.startswith("python -m attnlab.train ")])
def test_the_commands_of_the_readme_compose(line: str) -> None:
    import shlex

    from attnlab.config.compose import compose

    words = shlex.split(line, comments=True)[3:]
    if {"--help", "...", "-m"} & set(words) or any("mine" in word for word in words):
        return
    assert compose([word.replace("teacher=outputs/runs/NAME", "teacher=training:3fa9c1d2") for word in words if word != "..."]).address
