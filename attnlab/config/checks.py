"""Checks: a composed config held against the table of groups and every signature it names; the result is a Plan."""

import dataclasses
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnlab.config.groups import GROUPS, HOWS, KEYS, having
from attnlab.config.optimizer import complete_optimizer
from attnlab.config.plan import Options, Plan, address_of, ignored_keys, label_of
from attnlab.config.signatures import complete, conforms, describe, parameters
from attnlab.config.suggest import nearest
from attnlab.config.targets import ConfigError, group_choices, locate
from attnlab.config.teacher import find_teacher


def check(cfg: Any, *, choices: Mapping[str, Any], overrides: Sequence[str] = ()) -> Plan:
    """Hold a composed config against every signature it names; ConfigError on the first thing that cannot be meant."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        tree = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True) if OmegaConf.is_config(cfg) else dict(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from error
    tree.pop("hydra", None)
    _check_options(tree)
    _check_keyed(tree)
    teacher = find_teacher(tree["teacher"], outputs=Path(tree["paths"]["outputs"])) if tree["teacher"] is not None else None
    tree["teacher"] = teacher and teacher.identity
    full, short = {}, {}
    for key, value in tree.items():
        if key == "optimizer":
            full[key], short[key] = complete_optimizer(value, allow=tree["allow_targets"])
        else:
            full[key], short[key] = complete(value, allow=tree["allow_targets"], where=key)
    _check_demands(full)
    _check_distillation(full)
    label = tree["name"] or label_of(full, choices)
    if not re.fullmatch(r"[\w.+=-]{1,80}", label):
        raise ConfigError(f"name={label}: use 1 to 80 letters, digits and . _ + = -")
    ignored = ignored_keys(full)
    return Plan(full, short, label, address_of(short, ignored), ignored, tuple(overrides), teacher and teacher.path)


def _check_options(tree: dict[str, Any]) -> None:
    for key in having(several=True, optional=True):
        tree.setdefault(key, {})  # of `evaluator=[]`
    options = {field.name: field.type for field in dataclasses.fields(Options)}
    for key, value in tree.items():
        if group := GROUPS.get(key):
            if value is not None and not isinstance(value, Mapping):
                raise ConfigError(f"{key}={value}: must name a file of configs/{key}")
            if not group.several and "_target_" not in (value or {}) and (value or not group.optional):
                raise ConfigError(f"{key}: no _target_; choose one: {', '.join(group_choices(key))}")
            continue
        if key not in options:
            raise ConfigError(f"unknown key {key}; {nearest(key, [*GROUPS, *options])}")
        if not conforms(value, options[key]):
            raise ConfigError(f"{key}={value}: must be {describe(options[key])}")
    for key in (*options, *GROUPS):
        if key not in tree:
            raise ConfigError(f"{key}: missing; it cannot be deleted")
    for key in tree["paths"]:
        if key != "outputs":
            raise ConfigError(f"unknown key paths.{key}; nearest: paths.outputs")
    if tree["seed"] < 0:
        raise ConfigError(f"seed={tree['seed']}: must be 0 or more")


def _check_keyed(tree: Mapping[str, Any]) -> None:
    """Every entry of attention, regularizer and ood is a whole component; an override of one that was not chosen leaves a torso."""

    for group in having(several=True):
        chosen = [name for name, entry in tree[group].items() if is_whole(entry, group)]
        for name, entry in tree[group].items():
            if name not in chosen:
                rest = _leaf(name, entry)
                names = [*chosen, *group_choices(group)]
                near = f"{group}={name} chooses it" if name in names else nearest(name, names)
                raise ConfigError(f"{group}.{rest}: {name} is not chosen ({group}={_listed(chosen)}); {near}")
            if not GROUPS[group].placed:
                continue
            known = ("penalty",) if "penalty" in entry else KEYS
            for key in entry:
                if key not in known:
                    inner = entry.get("module", entry.get("penalty"))
                    raise ConfigError(f"unknown key {group}.{name}.{key}; {_near_entry(group, name, key, known, inner)}")
            if entry.get("how", "after") not in HOWS:
                raise ConfigError(f"{group}.{name}.how={entry['how']}: must be one of {', '.join(HOWS)}")


def is_whole(entry: Any, group: str) -> bool:
    """Whether an entry of a group is a component, and not only overrides of one that was not chosen."""
    parts = [entry.get("module"), entry.get("penalty")] if isinstance(entry, Mapping) else []
    nodes = parts if GROUPS[group].placed else [entry]
    return any(isinstance(node, Mapping) and "_target_" in node for node in nodes)


def _near_entry(group: str, name: str, key: str, known: Sequence[str], inner: Any) -> str:
    """`attention.rect.sharpness` is meant for the module: say so."""

    inside = []
    if isinstance(inner, Mapping) and "_target_" in inner:
        inside = list(parameters(locate(str(inner["_target_"]), allow=(str(inner["_target_"]).partition(".")[0],))))
    kind = "module" if "module" in known else "penalty"
    names = [*known, *(f"{kind}.{parameter}" for parameter in inside)]
    if key in inside:
        return f"nearest: {group}.{name}.{kind}.{key}"
    return nearest(key, names)


def _check_demands(full: Mapping[str, Any]) -> None:
    """What one group asks of another, as far as it can be seen before anything is built."""
    loss = locate(full["loss"]["_target_"], allow=full["allow_targets"])
    name = full["loss"]["_target_"].rpartition(".")[2]
    for group in having(placed=True):
        for key, entry in full[group].items():
            if entry.get("writes") and not getattr(loss, "soft_targets", False):
                raise ConfigError(f"{group}={key} makes soft labels, which loss {name} cannot take; use loss=ce or drop {group}={key}")
            at = entry.get("at")
            if entry.get("how") == "replace" and "fc" in ([at] if isinstance(at, str) else at or []) and getattr(loss, "needs_fc", False):
                raise ConfigError(f"loss {name} needs the Linear at fc, which {group}={key} replaces; use loss=ce or another {group}")


def _check_distillation(full: Mapping[str, Any]) -> None:
    """A term that asks for a teacher needs one, and images that both networks see alike."""
    for name, node in full["distillation"].items():
        target = locate(node["_target_"], allow=full["allow_targets"])
        if full["teacher"] is None and "teacher" in inspect.signature(getattr(target, "forward", target)).parameters:
            raise ConfigError(f"distillation={name} follows a teacher, and there is none; add teacher=RUN, a finished run's id or folder")
        for group in having(placed=True):
            for key, entry in full[group].items():
                if entry.get("writes"):
                    raise ConfigError(f"{group}={key} mixes images inside the network, and a teacher sees them unmixed; drop one")


def _leaf(name: str, entry: Any) -> str:
    while isinstance(entry, Mapping) and entry:
        key, entry = next(iter(entry.items()))
        name = f"{name}.{key}"
    return name


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"[{','.join(names)}]" if names else "none"
