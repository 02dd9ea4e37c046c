"""docs/catalogue.md is what the yamls, docstrings and tests say."""

import inspect
import json
import re
from typing import Any

import pytest
import yaml

from attnlab.config.groups import GROUPS
from attnlab.config.targets import group_choices
from attnlab.data.base import ImageData
from tests import ROOT
from tests.commands import script


def test_the_page_is_up_to_date() -> None:
    done = script("catalogue.py", "--check")
    assert done.code == 0, done.err or "docs/catalogue.md is not what `python scripts/catalogue.py` writes; run it"


def test_every_paper_of_the_lists_has_one_line_and_what_it_names_is_there() -> None:
    """The lists: 49 neighbours of MaxDropout, 49 of explanations and attention (15 of them the same), and the core papers with theirs."""
    entries = yaml.safe_load((ROOT / "docs" / "systems.yaml").read_text())
    core = ["C1", *(f"C2.{number}" for number in range(1, 10)), *(f"C3.{number}" for number in range(1, 6))]
    listed = sorted(number for entry in entries for number in entry["sheets"])
    assert listed == sorted([*(f"A{number}" for number in range(1, 50)), *(f"B{number}" for number in range(1, 50)), *core])
    for entry in entries:
        assert entry["here"] or entry.get("why"), entry["title"]
        for word in entry["here"]:
            group, _, choice = word.partition("=")
            if group in GROUPS:
                assert choice in group_choices(group), word
            elif word.startswith("data."):
                assert word.removeprefix("data.") in inspect.signature(ImageData).parameters, word
            else:
                assert word == "attnlab.evaluate join=features", word


LEFT_OUT = {  # of the catalogue's tables
    "attention/bipolar": "takes a hundred times as long a step on a CPU, by docs/costs.json",
    "attention/ltpa": "is for model=vgg_ltpa, which has table=ltpa",
    "attention/ltpa_merge": "is beside attention=ltpa",
    "loss/ce": "is in every other row",
    "init/teacher": "needs a teacher",
}


NOT_IN_CNN3 = {  # the network of catalogue_fashion has neither residual blocks nor a mean over the map
    "cross_connections": "takes the blocks of a stage",
    "droppath": "takes the residual branch",
    "dynamic_residual": "takes a residual block",
    "gated_pool": "takes the place of the mean",
    "multi_path": "takes a residual block",
}


def catalogue_table(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / "configs" / "table" / f"catalogue_{name}.yaml").read_text())


def without_places(row: list[str]) -> list[str]:
    return [word for word in row if not re.match(r"(attention|regularizer)\.\w+\.(at|reads)=", word)]


def test_every_component_stands_in_the_tables() -> None:
    words = [word.partition("=") for row in catalogue_table("digits")["rows"].values() for word in row]
    chosen = {f"{group}/{choice}" for group, _, choices in words for choice in re.findall(r"\w+", choices)}
    wanted = {f"{group}/{choice}" for group in ("attention", "regularizer", "loss", "init") for choice in group_choices(group)}
    missing = {choice for choice in wanted - chosen if not choice.endswith("/none")}
    assert missing == set(LEFT_OUT)


def test_the_tables_differ_in_places_and_in_what_has_none() -> None:
    digits, fashion = catalogue_table("digits"), catalogue_table("fashion")
    ours, theirs = (
        {name: without_places(row) for name, row in table["rows"].items() if not name.startswith("none, width")}
        for table in (digits, fashion)
    )
    assert {name: row for name, row in ours.items() if name not in NOT_IN_CNN3} == theirs
    assert set(ours) - set(theirs) == set(NOT_IN_CNN3)
    assert all(digits[key] == fashion[key] for key in ("columns", "seeds", "metric", "baseline"))


def test_costs_are_those_of_today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from benches import costs

    stored = json.loads((ROOT / "docs" / "costs.json").read_text())["costs"]
    assert set(stored["choices"]) == {choice for choice in costs.choices() if choice not in costs.NOT_HERE}
    assert costs.parameters(None) == stored["plain"]
    for choice in ("attention/se", "regularizer/final_bn", "loss/supcon"):
        assert costs.parameters(choice) - stored["plain"] == stored["choices"][choice]["parameters"], choice


def test_costs_are_in_the_page() -> None:
    page = (ROOT / "docs" / "catalogue.md").read_text()
    stored = json.loads((ROOT / "docs" / "costs.json").read_text())["costs"]["choices"]
    for choice, found in stored.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| {choice.partition('/')[2]} |"))
        assert f"| {found['parameters']:+,} |" in row or (found["parameters"] == 0 and "| 0 |" in row), choice
