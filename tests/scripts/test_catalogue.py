"""docs/catalogue.md is what the yamls, docstrings and tests say."""

import inspect

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
