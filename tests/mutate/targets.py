"""Which files are mutated, which tests are to notice, and which mutants nothing can notice."""

import ast
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests import ROOT
from tests.mutate.mutations import Mutation

FOLDERS = "attention regularizers losses distillation ood explainers heads convolutions pruning callbacks algorithms"
FILES = (  # of rooms that hold more than methods
    *(f"evaluation/{name}.py" for name in ("adversarial", "attribution_scores", "calibration", "corruptions")),
    *(f"evaluation/{name}.py" for name in ("faithfulness", "localisation", "sensitivity", "transductive")),
    "ensemble/concatenation.py",
    "training/schedules.py",
    "metrics.py",
)
TESTS = (
    "reference/test_*.py",
    "test_metrics.py",
    *(f"training/test_{name}.py" for name in ("callbacks", "halt", "loop_callbacks", "schedules")),
    "evaluation/test_localisation.py",
)
OTHER = {  # of what many methods share: the tests of those that lean on it most
    "adapter": "ood_heads",
    "attribution": "gradient smooth_taylor rise",
    "bank": "ood_heads euclid",
    "boxes": "cutmix cutout random_erasing",
    "feature_term": "at cc fsp",
}
SHARED = {  # tests with a case for each of many modules, and the file that names those
    "tests/reference/test_defaults.py::test_defaults": "reference/defaults.toml",
    "tests/reference/test_autocast.py::test_the_same_in_autocast": "reference/test_autocast.py",
    "tests/reference/test_ranges.py::test_ranges": "reference/test_ranges.py",
}
EQUIVALENT = Path(__file__).with_name("equivalent.toml")


def method_files() -> list[Path]:
    rooms = [ROOT / "attnlab" / folder for folder in FOLDERS.split()]
    found = [path for room in rooms for path in sorted(room.glob("*.py")) if path.name != "__init__.py"]
    return [*found, *(ROOT / "attnlab" / name for name in FILES)]


def nodes_of(path: Path) -> list[str]:
    """What pytest is given for a method file: its tests, and its cases of the tests that have one for each of many modules."""
    module = module_of(path)
    cases = [f"{test}[{module}]" for test, cases in SHARED.items() if f'"{module}"' in (ROOT / "tests" / cases).read_text()]
    return [*(test.relative_to(ROOT).as_posix() for test in tests_of(path)), *cases]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def tests_of(path: Path) -> list[Path]:
    """Its own test, test_NAME.py; else the tests that import it, else those of the methods that import it."""
    named = [test for name in OTHER.get(path.stem, path.stem).split() for test in _tests() if test.name == f"test_{name}.py"]
    module = module_of(path)
    if found := named or [test for test in _tests() if module in _imported(test)]:
        return found
    users = [other for other in method_files() if other != path and module in _imported(other)]
    return list(dict.fromkeys(test for user in users for test in tests_of(user)))


@cache
def _tests() -> tuple[Path, ...]:
    shared = {Path(test.split("::")[0]).name for test in SHARED}
    return tuple(path for pattern in TESTS for path in sorted((ROOT / "tests").glob(pattern)) if path.name not in shared)


@cache
def _imported(path: Path) -> frozenset[str]:
    """Modules that a file imports, anywhere in it; `from a import b` counts as a and as a.b."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return frozenset(names)


def yaml_defaults(path: Path) -> dict[str, Any]:
    """name: value of what a config says about something in this file; such a default never comes to pass in a run."""
    return {key: value for text, nodes in _configs() if f"{module_of(path)}." in text for node in nodes for key, value in _scalars(node)}


@cache
def _configs() -> list[tuple[str, list[Any]]]:
    return [(text, list(yaml.safe_load_all(text))) for text in (path.read_text() for path in sorted((ROOT / "configs").rglob("*.yaml")))]


def _scalars(node: Any) -> Iterator[tuple[str, Any]]:
    for key, value in node.items() if isinstance(node, dict) else ():
        if isinstance(value, dict):
            yield from _scalars(value)
        else:
            yield key, value


def equivalent() -> list[dict[str, str]]:
    """Entries with `file`, `line` (its text), `becomes` (as reported; left out: every change of that line) and `why`."""
    return tomllib.loads(EQUIVALENT.read_text()).get("mutant", []) if EQUIVALENT.exists() else []


def explains(entry: dict[str, str], file: str, mutation: Mutation) -> bool:
    return entry["file"] == file and entry["line"] == mutation.before and entry.get("becomes", mutation.after) == mutation.after


def stale(found: dict[str, list[Mutation]]) -> list[dict[str, str]]:
    """Entries that explain none of the mutants `found` (file: mutants)."""
    return [entry for entry in equivalent() if not any(explains(entry, entry["file"], one) for one in found.get(entry["file"], []))]
