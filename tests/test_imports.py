"""Imports run one way: no circle between files, none between rooms (the folders of attnlab), and no arrow against the order of the rooms.

Read from the source, so that imports within functions count too; what stands under `if TYPE_CHECKING:` does not.
"""

import ast
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from tests import ROOT

# A room may import from its own line and from those above it, in one direction: two rooms of a line are no circle either.
ORDER = (
    "config",  # from a command line to a checked plan, which may name a run by its record; imports nothing of ours
    "terminal metrics",
    "records placement data",
    "network ensemble concatenation",
    "attention backbones convolutions distillation explainers heads initialisation losses ood pruning regularizers",  # a method a file
    "training algorithms callbacks",
    "figures",
    "evaluation",
    "loggers",
    "pipeline",
    "sweeps",
    "tables",
    "train evaluate table runs",  # the commands
)
TOP = 8  # modules beside the folders

Arrow = tuple[str, str]  # (who imports, what)


def sources(package: Path) -> dict[str, Path]:
    """Every module below a package by its dotted name; a package is its __init__.py."""
    paths = sorted(package.rglob("*.py"))
    return {".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(package: Path) -> Iterator[Arrow]:
    """Who of a package's modules imports which other one."""
    modules = sources(package)

    def of(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            children: Iterable[ast.AST] = node.orelse
        else:
            children = ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports are not used here"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in modules else str(node.module)
        for child in children:
            yield from of(child)

    for name, path in modules.items():
        yield from ((name, other) for other in dict.fromkeys(of(ast.parse(path.read_text()))) if other in modules)


def room(module: str) -> str:
    """attnlab.training.learner -> training; attnlab.network -> network."""
    return module.split(".")[1] if "." in module else ""


def circles(arrows: Iterable[Arrow]) -> list[list[str]]:
    """The ways that lead back to where they start, one for each node that lies on such a way."""
    after: dict[str, list[str]] = {}
    for one, other in arrows:
        after.setdefault(one, []).append(other)

    def way_back(start: str) -> list[str] | None:
        ways, seen = [[start]], set()
        for way in ways:
            for following in after.get(way[-1], ()):
                if following == start:
                    return [*way, start]
                if following not in seen:
                    seen.add(following)
                    ways.append([*way, following])
        return None

    return [way for start in after if (way := way_back(start))]


def against(arrows: Iterable[Arrow], order: Mapping[str, int]) -> list[str]:
    """Imports of something from a later line."""
    return [f"{one} imports {other}" for one, other in arrows if order[room(one)] < order[room(other)]]


ARROWS = tuple(imports(ROOT / "attnlab"))
LINES = {name: line for line, names in enumerate(ORDER) for name in names.split()} | {"": -1}


def test_no_circle_between_files() -> None:
    assert [" -> ".join(way) for way in circles(ARROWS)] == []


def test_no_circle_between_rooms() -> None:
    between = {(room(one), room(other)): f"{one} imports {other}" for one, other in ARROWS if room(one) != room(other)}
    assert [[between[step] for step in itertools.pairwise(way)] for way in circles(between)] == []


def test_every_room_has_a_place_in_the_order() -> None:
    assert {room(name) for name in sources(ROOT / "attnlab")} == set(LINES)


def test_imports_follow_the_order_of_the_rooms() -> None:
    assert against(ARROWS, LINES) == []


def test_few_modules_at_the_top() -> None:
    assert len([path for path in (ROOT / "attnlab").glob("*.py") if path.name != "__init__.py"]) <= TOP


def test_the_order_is_long_enough_to_mean_something() -> None:
    assert len(ARROWS) > 150 and ("attnlab.table", "attnlab.tables.fill") in ARROWS  # an import within a function


@pytest.mark.parametrize(
    "text, found",
    [
        ("from house.b import x", [("house.a", "house.b")]),
        ("from house import b", [("house.a", "house.b")]),
        ("import house.b", [("house.a", "house.b")]),
        ("def f():\n    if True:\n        from house.b import x", [("house.a", "house.b")]),
        ("if TYPE_CHECKING:\n    from house.b import x\nelse:\n    import house.c.d", [("house.a", "house.c.d")]),
        ("import json, os.path", []),
    ],
)
def test_what_counts_as_an_import(text: str, found: list[Arrow], tmp_path: Path) -> None:
    (tmp_path / "house" / "c").mkdir(parents=True)
    for name in ("a", "b", "c/d"):
        (tmp_path / "house" / f"{name}.py").write_text(text if name == "a" else "")
    assert list(imports(tmp_path / "house")) == found


def test_circles_and_arrows_against_the_order_are_found() -> None:
    arrows = [("p.a.x", "p.b.y"), ("p.b.y", "p.c.z"), ("p.c.z", "p.a.x"), ("p.d", "p.a.x")]
    assert [way[0] for way in circles(arrows)] == ["p.a.x", "p.b.y", "p.c.z"]
    assert circles(arrows[:2]) == []
    assert against(arrows, {"d": 0, "c": 1, "b": 2, "a": 3}) == ["p.c.z imports p.a.x", "p.d imports p.a.x"]
