"""Entries: the nodes of the groups in one form, before they are held against signatures.

Settings left over of a component that is not chosen are dropped or refused, short keys (`attention.rect.sharpness`) are moved into the
component's node, and what the table of groups implies (`_partial_`, `how`) is filled in.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from attnlab.config.groups import GROUPS, HOWS, KEYS, KINDS, Group, having
from attnlab.config.optimizer import PARAMETER_GROUPS
from attnlab.config.overrides import names, replaces
from attnlab.config.signatures import MARKS, accepts_any, parameters
from attnlab.config.suggest import nearest
from attnlab.config.targets import ConfigError, group_choices, locate


def normalised(tree: Mapping[str, Any], words: Sequence[str], *, layered: bool) -> dict[str, Any]:
    """The tree with every group's node in one form. `words` are the overrides; layered: an experiment or a local file is in use.

    Settings in such a file of a choice that the command line replaced are dropped: `experiment=NAME regularizer=none` is an ablation.
    An override of a component that is not chosen is an error.
    """
    allow, found, dropped = tree["allow_targets"], dict(tree), []
    for name, group in GROUPS.items():
        replaced = replaces(words, name)
        if group.several:
            chosen = {key: entry for key, entry in tree[name].items() if is_component(entry, name)}
            for key in [key for key in tree[name] if key not in chosen]:
                if names(words, f"{name}.{key}") or not replaced:
                    raise ConfigError(_not_chosen(name, key, tree[name][key], list(chosen)))
                dropped.append(key)
            found[name] = {key: _entry(group, key, entry, words, allow) for key, entry in chosen.items()}
        elif tree[name] and "_target_" in tree[name]:
            node = dict(tree[name])
            if layered and replaced:
                node = _without_unknown_keys(name, node, words, allow)
            found[name] = _implied(name, node, partial=group.partial)
        else:  # an optional group without a choice; `check` has refused the others
            for key in tree[name] or {}:
                if names(words, f"{name}.{key}") or not replaced:
                    raise ConfigError(f"{name}.{key}: no {name} is chosen; choose one: {', '.join(group_choices(name))}")
            found[name] = {}
    if isinstance(found["optimizer"].get(PARAMETER_GROUPS), Mapping):
        found["optimizer"] = _without_groups_of(found, words, dropped)
    return found


def is_component(entry: Any, group: str) -> bool:
    """Whether an entry of a group of several is a component, and not only settings of one that is not chosen."""
    parts = [entry.get("module"), entry.get("penalty")] if isinstance(entry, Mapping) else []
    nodes = parts if GROUPS[group].placed else [entry]
    return any(isinstance(node, Mapping) and "_target_" in node for node in nodes)


def _entry(group: Group, name: str, entry: Mapping[str, Any], words: Sequence[str], allow: Sequence[str]) -> dict[str, Any]:
    where = f"{group.name}.{name}"
    if not group.placed:
        return _implied(where, entry, partial=group.partial)
    kind = "penalty" if "penalty" in entry else "module"
    if kind == "penalty" and "module" in entry:
        raise ConfigError(f"{where}: has a module and a penalty; a component is one of them")
    entry = _with_short_keys(where, kind, entry, words, allow)
    entry[kind] = _implied(f"{where}.{kind}", entry[kind], partial=kind == "module")
    if kind == "module":
        _check_places(where, entry, allow)
    return entry


def _with_short_keys(where: str, kind: str, entry: Mapping[str, Any], words: Sequence[str], allow: Sequence[str]) -> dict[str, Any]:
    """`attention.rect.sharpness=5` is `attention.rect.module.sharpness=5`. Where both are there, the command line goes before a file."""
    own = ("penalty",) if kind == "penalty" else KEYS
    node = dict(entry[kind])
    target = locate(str(node["_target_"]), allow=allow, where=f"{where}.{kind}._target_")
    inside = [key for key in parameters(target) if key not in own]
    for key in entry:
        if key in own:
            continue
        if key not in inside and not accepts_any(target):
            raise ConfigError(f"unknown key {where}.{key}; {nearest(key, [*own, *inside], prefix=where + '.')}")
        short, long = f"{where}.{key}", f"{where}.{kind}.{key}"
        if not names(words, long):
            both = isinstance(entry[key], Mapping) and isinstance(node.get(key), Mapping)
            node[key] = {**node[key], **entry[key]} if both else entry[key]
        elif names(words, short) and node.get(key) != entry[key]:
            raise ConfigError(f"{short}={entry[key]} and {long}={node.get(key)}: these are one parameter; give one of them")
    return {**{key: entry[key] for key in own if key in entry}, kind: node}


def _implied(where: str, node: Mapping[str, Any], *, partial: bool) -> dict[str, Any]:
    """`_partial_: true` where the framework calls the component; nowhere else."""
    if not partial and "_partial_" in node:
        raise ConfigError(f"{where}._partial_={node['_partial_']}: {where} is no partial function; leave _partial_ out")
    marks = {"_target_": node["_target_"], **({"_partial_": node.get("_partial_", True)} if partial else {})}
    return {**marks, **{key: value for key, value in node.items() if key not in MARKS}}


def _check_places(where: str, entry: dict[str, Any], allow: Sequence[str]) -> None:
    entry.setdefault("how", "after")
    if entry["how"] not in HOWS:
        raise ConfigError(f"{where}.how={entry['how']}: must be one of {', '.join(HOWS)}")
    at = entry.get("at")
    if at is None or at == []:
        raise ConfigError(f"{where}.at: names no place; give a place such as {where}.at=layer3")
    for place in at if isinstance(at, list) else [at]:
        if isinstance(place, Mapping):
            _check_kind(f"{where}.at", place, allow)
        elif not isinstance(place, str):
            raise ConfigError(f"{where}.at={at}: must be a place, a glob, {{type: norm}} or a list of them")
    for key in ("reads", "writes"):
        value = entry.get(key)
        if not (value is None or isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))):
            raise ConfigError(f"{where}.{key}={value}: must be a name or a list of names")


def _check_kind(where: str, place: Mapping[str, Any], allow: Sequence[str]) -> None:
    for key, value in place.items():
        if key not in ("type", "name"):
            raise ConfigError(f"unknown key {where}.{key}; {nearest(str(key), ['type', 'name'])}")
        if not isinstance(value, str):
            raise ConfigError(f"{where}.{key}={value}: must be a text")
    if "type" not in place:
        raise ConfigError(f"{where}.type: missing; one of {', '.join(KINDS)} or a class such as torch.nn.BatchNorm2d")
    if "." in place["type"]:
        locate(place["type"], allow=allow, where=f"{where}.type")
    elif place["type"] not in KINDS:
        raise ConfigError(f"{where}.type={place['type']}: must be one of {', '.join(KINDS)} or a class such as torch.nn.BatchNorm2d")


def _not_chosen(group: str, name: str, entry: Any, chosen: Sequence[str]) -> str:
    known = [*chosen, *group_choices(group)]
    near = f"{group}={name} chooses it" if name in known else nearest(name, known)
    path = name
    while isinstance(entry, Mapping) and entry:
        key, entry = next(iter(entry.items()))
        path = f"{path}.{key}"
    listed = chosen[0] if len(chosen) == 1 else f"[{','.join(chosen)}]" if chosen else "none"
    return f"{group}.{path}: {name} is not chosen ({group}={listed}); {near}"


def _without_unknown_keys(where: str, node: Mapping[str, Any], words: Sequence[str], allow: Sequence[str]) -> dict[str, Any]:
    """Without settings of the choice that the command line replaced, where the new one has no such parameter."""
    target = locate(str(node["_target_"]), allow=allow, where=f"{where}._target_")
    known = {*MARKS, *parameters(target), *((PARAMETER_GROUPS,) if where == "optimizer" else ())}
    return {key: value for key, value in node.items() if accepts_any(target) or key in known or names(words, f"{where}.{key}")}


def _without_groups_of(tree: Mapping[str, Any], words: Sequence[str], dropped: Sequence[str]) -> dict[str, Any]:
    """The optimizer without settings of components that the command line replaced."""
    optimizer, placed = tree["optimizer"], list(having(placed=True))
    chosen = [key for group in placed for key in tree[group]]
    gone = {*dropped, *(choice for group in placed if replaces(words, group) for choice in group_choices(group))} - {*chosen}
    kept = {
        name: options
        for name, options in optimizer[PARAMETER_GROUPS].items()
        if name not in gone or names(words, f"optimizer.{PARAMETER_GROUPS}.{name}")
    }
    return {**optimizer, PARAMETER_GROUPS: kept}
