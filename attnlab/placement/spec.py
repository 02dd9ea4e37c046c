"""Spec: `at`, `how`, `reads`, `writes` resolved against the places of a network: all that can be refused before a module is built."""

from collections.abc import Mapping, Sequence
from typing import Any

from attnlab.config.groups import HOWS, KEYS
from attnlab.config.suggest import nearest
from attnlab.placement.hooks import TARGET, Placement
from attnlab.placement.places import Place, matches


def resolve(placements: Mapping[str, Mapping[str, Any]], places: Mapping[str, Place], *, where: str = "placement") -> list[Placement]:
    """Resolve every placement against the places of a dry run: all that can be refused before a module is built."""
    resolved = [placement for name, spec in placements.items() for placement in _resolve_one(f"{where}.{name}", name, spec, places)]
    replaced = [placement for placement in resolved if placement.how == "replace"]
    for placement in resolved:
        for other in replaced:
            inside = placement.place.startswith(other.place + ".")
            if placement is not other and (inside or (placement.how == "replace" and placement.place == other.place)):
                verb = "lies inside" if inside else "is also"
                taken = f"{other.place}, which {where}.{other.name} replaces"
                raise ValueError(f"{where}.{placement.name}.at: {placement.place} {verb} {taken}; give them places apart")
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
    wanted = {found for pattern in _listed(spec["at"]) for found in _found(f"{where}.at", pattern, names)}
    reads: list[str] = []
    for pattern in _listed(spec.get("reads")):
        reads += [TARGET] if pattern == TARGET else _found(f"{where}.reads", pattern, names)

    resolved = []
    for at in (known for known in names if known in wanted):
        shapes = places[at].outputs if how == "after" else places[at].inputs
        if len(shapes) != 1 or None in shapes:
            said = "no tensor" if None in shapes else f"tensors of several shapes {sorted(shapes)}"
            raise ValueError(f"{where}.at: {at} handles {said} in one pass; choose a place with one shape")
        for read in reads:
            if read != TARGET and places[read].end >= (places[at].end if how == "after" else places[at].start):
                raise ValueError(f"{where}.reads: {read} runs after {at}, so its value is not there yet; read an earlier place")
            if read != TARGET and (len(places[read].outputs) != 1 or None in places[read].outputs):
                raise ValueError(f"{where}.reads: {read} does not give one tensor of one shape; choose another place")
        resolved.append(Placement(name, at, how, next(iter(shapes)), tuple(reads), writes))
    return resolved


def _listed(value: str | Sequence[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _found(where: str, pattern: str, names: Sequence[str]) -> list[str]:
    found = matches(pattern, names)
    if not found:
        raise ValueError(f"{where}: no place matches {pattern!r}; {nearest(pattern, names)}")
    return found
