"""Spec: `at`, `how`, `reads`, `writes` resolved against the places of a network: all that can be refused before a module is built."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from attnlab.config.groups import HOWS, KEYS
from attnlab.config.suggest import nearest
from attnlab.placement.hooks import TARGET, Placement
from attnlab.placement.kinds import of_type
from attnlab.placement.places import Place, matches

Where = str | Mapping[str, str]


def spelt(where: Where, name: str) -> str:
    """What messages call a component: `where` says it of each by name, or is what stands before every name."""
    return f"{where}.{name}" if isinstance(where, str) else where[name]


def resolve(placements: Mapping[str, Mapping[str, Any]], places: Mapping[str, Place], *, where: Where = "placement") -> list[Placement]:
    """Resolve every placement against the places of a dry run: all that can be refused before a module is built."""
    resolved = [placement for name, spec in placements.items() for placement in _resolve_one(spelt(where, name), name, spec, places)]
    replaced = [placement for placement in resolved if placement.how == "replace"]
    for placement in resolved:
        for other in replaced:
            inside = placement.place.startswith(other.place + ".")
            if placement is not other and (inside or (placement.how == "replace" and placement.place == other.place)):
                verb = "lies inside" if inside else "is also"
                taken = f"{other.place}, which {spelt(where, other.name)} replaces"
                raise ValueError(f"{spelt(where, placement.name)}.at: {placement.place} {verb} {taken}; give them places apart")
    return resolved


def _resolve_one(where: str, name: str, spec: Mapping[str, Any], places: Mapping[str, Place]) -> list[Placement]:
    for key in spec:
        if key not in KEYS:
            raise ValueError(f"{where}.{key}: unknown key; {nearest(key, KEYS)}")
    for key in ("at", "module"):
        if spec.get(key) is None:
            raise ValueError(f"{where}.{key}: missing; a placement needs `at` and `module`")
    how = spec.get("how", "after")
    if how not in HOWS:
        raise ValueError(f"{where}.how: {how!r} is none of {', '.join(HOWS)}")
    writes = tuple(_listed(spec.get("writes")))
    if writes not in ((), (TARGET,)):
        raise ValueError(f"{where}.writes: only [target] can be written, got {list(writes)}")

    names = list(places)
    wanted = {found for pattern in _listed(spec["at"]) for found in _at(f"{where}.at", pattern, places)}
    if not wanted:
        raise ValueError(f"{where}.at: names no place; give at least one")
    reads: list[str] = []
    for pattern in _listed(spec.get("reads")):
        reads += [TARGET] if pattern == TARGET else _found(f"{where}.reads", pattern, names)
    for read in reads:
        if read != TARGET and (places[read].calls > 1 or len(places[read].outputs) != 1 or None in places[read].outputs):
            raise ValueError(f"{where}.reads: {read} does not give one tensor of one shape in a pass; choose another place")

    shareable = bool(getattr(_target(spec["module"]), "shareable", False))
    resolved = []
    for at in (known for known in names if known in wanted):
        place = places[at]
        shapes = place.outputs if how == "after" else place.inputs
        if None in shapes:
            raise ValueError(f"{where}.at: {at} handles no tensor; choose a place that does")
        if place.calls > 1 and not (shareable and not reads):
            of = f" of several shapes {sorted(shapes)}" if len(shapes) > 1 else ""
            raise ValueError(
                f"{where}.at: {at} handles {place.calls} tensors{of} in one pass; choose a place that is called once, "
                "or a component that may be shared (shareable = True) and reads nothing"
            )
        for read in reads:
            if read != TARGET and places[read].end >= (place.end if how == "after" else place.start):
                raise ValueError(f"{where}.reads: {read} runs after {at}, so its value is not there yet; read an earlier place")
        resolved.append(Placement(name, at, how, next(iter(shapes)), tuple(reads), writes))
    return resolved


def _at(where: str, pattern: Any, places: Mapping[str, Place]) -> list[str]:
    """The places that one entry of `at` names: a name or a glob, or `{type: norm, name: "layer*.**"}`."""
    if not isinstance(pattern, Mapping):
        return _found(where, pattern, list(places))
    for key in pattern:
        if key not in ("type", "name"):
            raise ValueError(f"{where}.{key}: unknown key; known: type, name")
    if "type" not in pattern:
        raise ValueError(f"{where}.type: missing; give a kind or a class of modules")
    named = _found(f"{where}.name", pattern["name"], list(places)) if "name" in pattern else list(places)
    return of_type(pattern["type"], [(name, places[name].module) for name in named], where=where)


def _target(module: Any) -> Any:
    """The class or function that a partial stands for."""
    while isinstance(module, functools.partial):
        module = module.func
    return module


def _listed(value: Any) -> list[Any]:
    return [] if value is None else [value] if isinstance(value, str | Mapping) else list(value)


def _found(where: str, pattern: Any, names: Sequence[str]) -> list[str]:
    if not isinstance(pattern, str):
        raise ValueError(f"{where}: {pattern!r} is no name of a place")
    found = matches(pattern, names)
    if not found:
        raise ValueError(f"{where}: no place matches {pattern!r}; {nearest(pattern, names)}")
    return found
