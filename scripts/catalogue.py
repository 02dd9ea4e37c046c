"""docs/catalogue.md from the yamls, docstrings and tests: `python scripts/catalogue.py` writes it, `--check` compares.

A row a choice of every group: its name, what it is, its paper, its reference test, its costs, a command. Nothing of that is written by
hand; the papers at the end are docs/systems.yaml, the costs docs/costs.json, which `scripts/bench.py costs` measures.
"""

import argparse
import ast
import functools
import inspect
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

from attnlab.config.groups import GROUPS  # noqa: E402
from attnlab.config.targets import config_dir, locate  # noqa: E402

PAGE = ROOT / "docs" / "catalogue.md"
COSTS = ROOT / "docs" / "costs.json"
SYSTEMS = ROOT / "docs" / "systems.yaml"
SHOWN = (
    "model",
    "init",
    "attention",
    "regularizer",
    "loss",
    "distillation",
    "algorithm",
    "callback",
    "ood",
    "evaluator",
    "explainer",
    "schedule",
    "data",
)
HEAD = """# Catalogue

Everything that a config group can choose, written by `python scripts/catalogue.py` from the yamls, docstrings and tests; a test holds this
page to them. *Checked*: its reference test, in that test's own words. *Reading*: part of the definition is ours; the docstring says which.
"""


def target_of(node: Any) -> str | None:
    """The target that a choice's yaml names: its own, or that of its module or penalty."""
    if isinstance(node, dict):
        if "_target_" in node:
            return str(node["_target_"])
        return next((found for value in node.values() if (found := target_of(value))), None)
    return None


def sentence(text: str) -> str:
    """The first sentence of a docstring, on one line, without the paper in brackets."""
    first = " ".join(text.strip().split("\n\n")[0].split())
    first = re.split(r"(?<=[a-z)\]])[.:] (?=[A-Z`])", first)[0].rstrip(".:")
    return re.sub(r"\s*\([^()]*(?:arXiv|19\d\d|20\d\d)[^()]*\)", "", first).replace("|", "\\|")


def papers(*texts: str) -> list[str]:
    return list(dict.fromkeys(re.findall(r"\b\d{4}\.\d{4,5}\b", " ".join(texts))))


@functools.cache
def _tests() -> dict[str, tuple[Path, str]]:
    return {path.stem: (path, path.read_text()) for path in sorted((ROOT / "tests").rglob("test_*.py"))}


def reference_test(stem: str, target: str) -> Path | None:
    """The test named after the choice or its module, else the first that imports what the yaml names."""
    module, _, name = target.rpartition(".")
    tests = _tests()
    imports = re.compile(rf"from {re.escape(module)} import (\([^)]*|[^\n]*)\b{re.escape(name)}\b")
    named = [tests[f"test_{word}"][0] for word in (stem, module.rpartition(".")[2]) if f"test_{word}" in tests]
    return next(iter([*named, *(path for path, text in tests.values() if imports.search(text))]), None)


class Costs:
    """What docs/costs.json says: parameters and, where they were measured, the share of a step that a choice adds."""

    def __init__(self, stored: dict[str, Any]) -> None:
        self.stored, self.choices = stored, stored["costs"]["choices"]

    @property
    def groups(self) -> set[str]:
        return {choice.partition("/")[0] for choice in self.choices}

    @property
    def names(self) -> list[str]:
        """The columns that there are numbers for."""
        return ["parameters", *(["step"] if any("step" in found for found in self.choices.values()) else [])]

    def cells(self, choice: str) -> str:
        found = self.choices.get(choice, {})
        number = f"{found['parameters']:+,}" if found.get("parameters") else "0" if found else "not here"
        step = f"{100 * found['step']:+.0f} %" if "step" in found else ""
        return "".join(f" {value} |" for value, _ in zip((number, step), self.names))

    def words(self) -> str:
        costs, machine = self.stored["costs"], self.stored["machine"]
        text = f"*Parameters*: what a choice at its yaml's own place adds to the {costs['plain']:,} of ResNet-18 for 10 classes of 3x32x32"
        if "step" in self.names:
            network = f"ResNet-18 of width {costs['width']} on {costs['batch_size']} images"
            text += f".\n*Step*: what it adds to a training step of a {network}, in {costs['by']} ({machine['device']},\n"
            text += "medians of pairs on a busy machine; where 0 lies between the quartiles, in docs/costs.json, the sign says nothing)"
        helps = "Whether it helps, under one recipe on two small sets of images: [results.md](results.md)."
        return f"{text}:\n`{self.stored['command']}`.\n{helps}\n"


@dataclass(frozen=True)
class Entry:
    """What a choice's yaml, docstring and test say of it. target: None where the yaml names none, and then there is no docstring."""

    name: str
    target: str | None
    comments: list[str]
    title: str
    doc: str
    papers: list[str]
    command: str
    test: Path | None
    checked: str
    reading: bool


def entry(group: str, path: Path) -> Entry:
    text = path.read_text()
    target = target_of(yaml.safe_load(text) or {})
    thing = locate(target) if target else None
    doc = (inspect.getdoc(thing) or inspect.getdoc(inspect.getmodule(thing)) or "") if target else ""
    comments = [line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#") and not line.startswith("# @")]
    command = next((line for line in comments if line.startswith("python -m attnlab")), f"python -m attnlab.train {group}={path.stem}")
    title = comments[0] if comments and not comments[0].startswith("python -m") else doc
    test = reference_test(path.stem, target) if target else None
    checked = sentence(ast.get_docstring(ast.parse(test.read_text())) or test.stem) if test else ""
    reading = bool(re.search(r"\bour reading\b", doc, re.I))
    return Entry(path.stem, target, comments, title, doc, papers(title) or papers(doc)[:1], command.split("  ")[0], test, checked, reading)


def row(group: str, found: Entry, costs: Costs) -> str:
    links = ", ".join(f"[{paper}](https://arxiv.org/abs/{paper})" for paper in found.papers)
    checked = f"[{found.checked}](../{found.test.relative_to(ROOT)})" if found.test else ""
    cost = costs.cells(f"{group}/{found.name}") if group in costs.groups else ""
    reading = "yes" if found.reading else ""
    return f"| {found.name} | {sentence(found.title)} | {links} | {checked} | {reading} |{cost} `{found.command}` |"


def page() -> str:
    costs = Costs(json.loads(COSTS.read_text()))
    parts = [HEAD + costs.words()]
    for group in SHOWN:
        assert group in GROUPS, group
        found = [entry(group, path) for path in sorted((config_dir() / group).rglob("*.yaml"))]
        rows = [row(group, one, costs) for one in found if one.target]
        heads = [f"{group}=", "what it is", "paper", "checked", "reading", *(costs.names if group in costs.groups else []), "command"]
        parts.append("\n".join([f"## {group}", "", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *rows, ""]))
    parts.append(systems())
    return "\n".join(parts)


def systems() -> str:
    """The papers beside which this bench was made, a line each: where what carries over lives, or why nothing does."""
    entries = yaml.safe_load(SYSTEMS.read_text())
    rows = []
    for entry in entries:
        link = f"[{entry['paper']}](https://arxiv.org/abs/{entry['paper']})" if "paper" in entry else ""
        here = ", ".join(f"`{word}`" for word in entry["here"])
        assert here or "why" in entry, f"{entry['title']}: neither where it is nor why it is not"
        rows.append(f"| {entry['title']} | {link} | {here} | {entry.get('why', '')} |")
    nothing = sum(not entry["here"] for entry in entries)
    head = f"## Papers\n\n{len(entries)} papers and what of each is here; of {nothing} nothing is, for the reason named.\n\n"
    return head + "| paper | arXiv | here | not here, and why |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where the page is another")
    if parser.parse_args().check:
        return int(PAGE.read_text() != page())
    PAGE.write_text(page())
    print(PAGE.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
