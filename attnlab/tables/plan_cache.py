"""The plans of a table's cells, kept from one command to the next: to compose them takes Hydra and torch, to read them again neither.

A file of the cache is a cell's: its plans by seed, and digests of what they were made from: the configs, every module of attnlab that was
imported by then, the versions of the libraries whose signatures count. Where any of it has changed, or the file itself is not what was
written (it holds its own digest), the cell is composed anew.
"""

import functools
import json
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnlab.config.cells import compose_cells
from attnlab.config.plan import Plan
from attnlab.config.targets import config_dir
from attnlab.records.provenance import versions
from attnlab.tables import cache as table_cache

PACKAGE = Path(__file__).parents[1]
# a resolver (oc.env), a folder of configs, or a run or file that is a teacher: not watched here
ELSEWHERE = re.compile(r"\$\{\s*[\w.]+\s*:|searchpath|^\+*teacher=(?!training:|null)")
STARTED = time.time() - 1.0


def plans_of(cells: Sequence[Sequence[str]], seeds: Sequence[int]) -> list[list[Plan]]:
    """What `compose_cells` gives."""
    found = {tuple(cell): _kept(tuple(cell)) for cell in cells}
    missing = [cell for cell, plans in found.items() if not plans.keys() >= set(seeds)]
    if missing:
        for cell, plans in zip(missing, compose_cells(missing, seeds), strict=True):
            found[cell] |= dict(zip(seeds, plans, strict=True))
        _keep({cell: found[cell] for cell in missing})
    return [[found[tuple(cell)][seed] for seed in seeds] for cell in cells]


def _kept(cell: tuple[str, ...]) -> dict[int, Plan]:
    try:
        content = json.loads(table_cache.read(_path(cell)) or "{}")
        kept = content.get("kept")
        if not kept or content["digest"] != table_cache.digest(kept) or any(_now(name) != then for name, then in kept["made_from"].items()):
            return {}
        if any(plan["full"]["allow_targets"] or not set(cell) <= set(plan["overrides"]) for plan in kept["plans"]):
            return {}  # never kept so: a file that somebody else wrote permits nothing
        plans = [Plan(**plan | {"ignored": tuple(plan["ignored"]), "overrides": tuple(plan["overrides"])}) for plan in kept["plans"]]
        return {plan.full["seed"]: plan for plan in plans}
    except (ValueError, KeyError, TypeError, AttributeError):  # damaged
        return {}


def _keep(cells: Mapping[tuple[str, ...], Mapping[int, Plan]]) -> None:
    """What can be watched, can be written as JSON, and has not been edited since this process read it."""
    files = [Path(module.__file__) for name, module in list(sys.modules.items()) if name.startswith("attnlab.") and module.__file__]
    files = [path for path in files if path.is_relative_to(PACKAGE)]
    if any(map(_edited, [*files, *_configs()])) or _more_configs():
        return
    made_from = {name: _now(name) for name in ("configs", "libraries", *(str(path.relative_to(PACKAGE)) for path in files))}
    for cell, plans in cells.items():
        kept = {"made_from": made_from, "plans": [vars(plan) for plan in plans.values()]}
        watched = not any(map(ELSEWHERE.search, cell)) and not any(plan.allow for plan in plans.values())
        one = kept["plans"][0]  # the others differ from it in their seed
        if watched and json.loads(json.dumps(one)) == _listed(one):
            text = json.dumps(kept)
            table_cache.write(_path(cell), f'{{"digest": "{table_cache.digest(text.encode())}", "kept": {text}}}'.encode())


def _path(cell: Sequence[str]) -> Path:
    return table_cache.cache_dir("plans") / f"{table_cache.digest([str(config_dir()), *cell])}.json"


def _configs() -> list[Path]:
    return [path for path in sorted(config_dir().rglob("*.yaml")) if path.parent.name != "table"]


def _edited(path: Path) -> bool:
    """Whether a file is another than this process may have read."""
    try:
        return path.stat().st_mtime > STARTED
    except OSError:
        return True


def _more_configs() -> bool:
    """Whether configs come from folders that are not watched: a resolver in one of ours, or a plugin of Hydra that adds a folder."""
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    return any(ELSEWHERE.search(path.read_text()) for path in _configs()) or bool(Plugins.instance().discover(SearchPathPlugin))


@functools.cache
def _now(name: str) -> str:
    """The digest of something that plans are made from; empty where it is no more."""
    if name == "configs":
        return table_cache.digest({str(path.relative_to(config_dir())): path.read_text() for path in _configs()})
    if name == "libraries":
        from importlib.metadata import version

        return table_cache.digest([sys.version, versions(), version("omegaconf")])
    try:
        return table_cache.digest((PACKAGE / name).read_bytes())
    except OSError:
        return ""


def _listed(value: Any) -> Any:
    """With lists for tuples, as JSON gives them back."""
    if isinstance(value, Mapping):
        return {key: _listed(item) for key, item in value.items()}
    return [_listed(item) for item in value] if isinstance(value, list | tuple) else value
