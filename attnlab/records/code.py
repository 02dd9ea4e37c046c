"""Which code a run's numbers are from: digests of the modules that its configuration names, held against each other.

A component of attnlab counts with its own module (one method, one file); what the framework around it is, the record's commit says. One of
another package counts with every module of that package that it imports, directly or not, as nothing else is known of that package.
"""

import ast
import functools
import hashlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnlab.config.plan import Plan
from attnlab.config.targets import LIBRARIES, locate

STRING = rb'"""(?:\\.|[^\\])*?"""' + rb"|'''(?:\\.|[^\\])*?'''" + rb'|"(?:\\.|[^"\\\n])*"' + rb"|'(?:\\.|[^'\\\n])*'"
COMMENT = re.compile(rb"(?P<string>" + STRING + rb")|#[^\n]*", re.DOTALL)
DOCSTRING = re.compile(rb"(?P<before>\A|:\n)\s*[rR]?(?:" + STRING + rb")(?=\n|\Z)", re.DOTALL)
PACKAGE = Path(__file__).parents[1]
OURS = "attnlab."


def code_of(plan: Plan, *, trained: bool = False) -> dict[str, str]:
    """16 hex digits by module, of what a plan names in its `_target_`s and its numbers depend on; trained: its trained network alone.

    Comments, docstrings and blank lines do not count.
    """
    aside = plan.not_trained_on if trained else plan.ignored
    found: dict[str, str] = {}
    for target in sorted(set(_targets({key: value for key, value in plan.full.items() if key not in aside}))):
        home = target.rpartition(".")[0]
        if target.startswith(OURS):
            found[home] = _digest(PACKAGE.parent.joinpath(*home.split(".")).with_suffix(".py"))
        elif not target.startswith(tuple(LIBRARIES)):
            found |= {name: _digest(path) for name, path in _modules(locate(target, allow=plan.allow).__module__).items()}
    return {name: digest for name, digest in found.items() if digest}


def changed(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The modules that are not what they were. One that is new is imported by one that has changed."""
    return sorted(name for name in then if name in now and then[name] != now[name])


def foreign(modules: Sequence[str]) -> list[str]:
    """Those that are not attnlab's."""
    return [name for name in modules if not name.startswith(OURS)]


def _targets(node: Any) -> Iterator[str]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            else:
                yield from _targets(value)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _targets(value)


@functools.cache
def _modules(name: str) -> dict[str, Path]:
    """A module and those of its top-level package that it imports, by what is loaded: their files."""
    top, found, waiting = name.partition(".")[0], {}, [name]
    while waiting:
        one = waiting.pop()
        module = sys.modules.get(one)
        path = getattr(module, "__file__", None)
        if one in found or not path or (one != top and not one.startswith(top + ".")):
            continue
        found[one] = Path(path)
        package = one if hasattr(module, "__path__") else one.rpartition(".")[0]
        waiting += _imported(Path(path), package)
    return found


def _imported(path: Path, package: str) -> Iterator[str]:
    """Names of modules that a file's import statements may mean, wherever in it they stand."""
    try:
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):  # an extension, or gone
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *([node.module] if node.module else [])]) if node.level else node.module
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


@functools.cache
def _digest(path: Path) -> str:
    """Of a file as it was when this process first asked, which is when it was imported; empty where there is none."""
    try:
        content = path.read_bytes()
    except OSError:
        return ""
    return hashlib.sha256(_bare(content)).hexdigest()[:16]


def _bare(content: bytes) -> bytes:
    """Python's source without comments, docstrings and blank lines: by its text alone, so the same under every version of Python."""
    kept = COMMENT.sub(lambda found: found["string"] or b"", content.replace(b"\r\n", b"\n"))
    kept = DOCSTRING.sub(lambda found: found["before"], re.sub(rb"[ \t]+$", b"", kept, flags=re.MULTILINE))
    return re.sub(rb"\n+", b"\n", kept).strip(b"\n")
