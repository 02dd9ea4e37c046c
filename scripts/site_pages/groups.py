"""A page a folder of configs: what its choices are, what their docstrings say, their keys, and the command that chooses each."""

import importlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import yaml

from attnlab.config.groups import GROUPS, LAYERS
from attnlab.config.help import nodes
from attnlab.config.targets import config_dir
from catalogue import ROOT, Entry, entry, sentence
from site_pages.docstrings import inline, literal, restructured

OTHERS = {
    "experiment": "Recipes of papers: a layer of settings over several groups, `experiment=maxdropout/resnet18`.",
    "table": "Tables of papers: rows and columns of overrides, seeds, a metric, the published figures.",
    "rate": "A model's own learning rate under an optimizer; nobody chooses it, it is there where it is needed.",
}


def names() -> list[str]:
    """The folders of configs that hold choices, in the order of the groups."""
    folders = {path.name for path in config_dir().iterdir() if path.is_dir() and any(path.rglob("*.yaml"))} - {"hydra", "local"}
    return [*(name for name in GROUPS if name in folders), *sorted(folders - {*GROUPS})]


def purpose(group: str) -> str:
    """What stands behind the group in configs/train.yaml."""
    found = re.search(rf"(?m)^  - {group}: [^#\n]*# *(.+)$", (config_dir() / "train.yaml").read_text())
    return OTHERS.get(group) or (found[1][0].upper() + found[1][1:] + "." if found else "")


def page(group: str, pictures: Path | None = None) -> str:
    paths = sorted((config_dir() / group).rglob("*.yaml"))
    entries = [(entry(group, path), path) for path in paths]
    lines = [*_title(group, "="), "", inline(purpose(group)), "", *_chosen(group), ""]
    lines += _picture(group, pictures)
    lines += _overview(group, entries)
    if contract := _contract([found for found, _ in entries]):
        lines += [*_title("What it is to the code", "-"), "", *contract]
    for found, path in entries:
        lines += ["", *_choice(group, found, path)]
    return "\n".join(lines) + "\n"


def index() -> str:
    lines = [
        *_title("Components", "="),
        "",
        "A page a config group, made from the yamls, docstrings and tests.",
        "",
    ]
    rows = [[f":doc:`{name}`", inline(purpose(name)), str(sum(1 for _ in (config_dir() / name).rglob("*.yaml")))] for name in names()]
    lines += [*table(["group", "what it chooses", "choices"], rows), "", *toctree(names())]
    return "\n".join(lines) + "\n"


def files(page: str) -> list[PurePosixPath]:
    """The files of the project that a page links to."""
    return [PurePosixPath(found) for found in re.findall(r"<\.\./files/([^>]+)\.txt>", page)]


def toctree(documents: Sequence[str], *, depth: int = 1) -> list[str]:
    return [".. toctree::", "   :hidden:", f"   :maxdepth: {depth}", "", *(f"   {name}" for name in documents), ""]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    found = [".. list-table::", "   :header-rows: 1", ""]
    for row in [heads, *rows]:
        for i, cell in enumerate(row):
            found.append(f"   {'*' if i == 0 else ' '} - {cell}".rstrip())
    return found


def _title(text: str, line: str) -> list[str]:
    return [inline(text), line * max(len(inline(text)), 4)]


def _chosen(group: str) -> list[str]:
    if group not in GROUPS:
        return []
    about = GROUPS[group]
    words = [f"`{group}=NAME`" + (f", or several: `{group}=[a,b]`" if about.several else "")]
    words += ["may be `none`"] * about.optional
    words += ["its components are put at places of the network"] * about.placed
    words += ["the same training serves several choices"] * (about.counts and not about.trains)
    words += ["enters no address: it changes no number"] * (not about.counts)
    return [inline("; ".join(words) + ".")]


def _picture(group: str, pictures: Path | None) -> list[str]:
    if pictures is None or not (pictures / f"{group}.png").is_file():
        return []
    words = inline((pictures / f"{group}.txt").read_text().strip())
    short = words.split(". ")[0]
    return [f".. figure:: /drawn/{group}.png", f"   :alt: {short}", "   :figclass: drawn", "", f"   {words}", ""]


def _overview(group: str, entries: Sequence[tuple[Entry, Path]]) -> list[str]:
    rows = []
    for found, path in entries:
        papers = ", ".join(inline(paper) for paper in found.papers)
        rows.append([f":ref:`{_name(group, path)} <{_label(group, path)}>`", inline(_said(found, path)), papers])
    return [*table([group, "what it is", "paper"], rows), ""]


def _said(found: Entry, path: Path) -> str:
    if found.title or found.doc:
        return re.sub(r"\s*\(\d{4}\.\d{4,5}\)", "", sentence(found.title or found.doc)).replace("\\|", "|")  # the paper has a column
    text = yaml.safe_load(path.read_text()) or {}
    return str(text.get("title", "nothing of this group" if found.name == "none" else ""))


def _name(group: str, path: Path) -> str:
    return str(path.relative_to(config_dir() / group).with_suffix(""))


def _label(group: str, path: Path) -> str:
    return f"{group}-{_name(group, path)}".replace("/", "-").replace("_", "-")


def _contract(entries: Sequence[Entry]) -> list[str]:
    """The docstring of the package that most choices are from, which says what any object must have to be one."""
    packages = Counter(found.target.rpartition(".")[0].rpartition(".")[0] for found in entries if found.target)
    if not packages or not (package := packages.most_common(1)[0][0]).startswith("attnlab."):
        return []
    return restructured(importlib.import_module(package).__doc__ or "")


def _choice(group: str, found: Entry, path: Path) -> Iterator[str]:
    yield from [f".. _{_label(group, path)}:", "", *_title(_name(group, path), "-"), ""]
    words = [line for line in found.comments if not line.startswith("python -m")]
    if words:
        yield from [inline(" ".join(words)), ""]
    if found.doc:  # of others the first sentence alone: their docstrings are markup, and theirs to show
        ours = (found.target or "").startswith("attnlab.")
        yield from [*(restructured(found.doc) if ours else [f"{inline(sentence(found.doc))} (``{found.target}``)."]), ""]
    yield from [*literal([found.command], "bash"), ""]
    if group in GROUPS:
        yield from _keys(group, found, path)
    elif not found.target:
        yield from [*literal(_body(path), "yaml"), ""]
    notes = []
    if found.target and found.target.startswith("attnlab."):
        notes.append(f"In Python: :py:obj:`{found.target}`.")
    if found.test:
        file = found.test.relative_to(ROOT)
        notes.append(f"Checked by `{file} <../files/{file}.txt>`__: {inline(found.checked)}.")
    if found.reading:
        notes.append("A part of the definition is our reading; the text above says which.")
    yield from [" ".join(notes), ""]


def _body(path: Path) -> list[str]:
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


def _keys(group: str, found: Entry, path: Path) -> Iterator[str]:
    node = yaml.safe_load(path.read_text()) or {}
    for _, _, rows in nodes(group, {group: node}, {group: found.name}):
        if rows:
            cells = [[f"``{key}``", f"``{value}``" if value else "", inline(kind), inline(note)] for key, value, kind, note in rows]
            yield from [*table(["key", "default", "type", "meaning"], cells), ""]


assert set(LAYERS) - {"local"} <= {*OTHERS}
