"""Checks: a composed config held against the table of groups and every signature it names; the result is a Plan."""

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from attnlab.config.build import build
from attnlab.config.entries import is_component, normalised
from attnlab.config.groups import GROUPS, LAYERS, having
from attnlab.config.optimizer import complete_optimizer
from attnlab.config.overrides import check_choices, check_lost, names
from attnlab.config.plan import Options, Plan, address_of, ignored_keys, label_of
from attnlab.config.signatures import check_numbers, complete, conforms, describe, join
from attnlab.config.suggest import nearest
from attnlab.config.targets import ConfigError, check_allowed, group_choices, locate
from attnlab.config.teacher import find_teacher

REFERENCE = re.compile(r"\$\{[^{}:$]+\}")  # ${seed}: another key of the same config
HALT = "attnlab.callbacks.halt.Halt"  # what the option `halt` describes
METRICS = ("test", "val", "train", "ood", "loc", "explain", "calibration")  # what the names of metrics begin with, beside evaluators' own


def check(cfg: Any, *, choices: Mapping[str, Any], overrides: Sequence[str] = ()) -> Plan:
    """Hold a composed config against the table of groups and every signature it names; ConfigError on the first mistake.

    `choices` are Hydra's of the groups; `overrides` what the command line says (see `attnlab.config.entries`).
    """
    check_choices(overrides)
    check_lost(overrides)
    tree = plain(cfg)
    _check_options(tree)
    layered = any(choices.get(layer) or names(overrides, layer) for layer in LAYERS)
    tree = normalised(tree, overrides, layered=layered)
    teacher = find_teacher(tree["teacher"], outputs=Path(tree["paths"]["outputs"])) if tree["teacher"] is not None else None
    tree["teacher"] = teacher and teacher.identity
    full, short = {}, {}
    for key, value in tree.items():
        if key == "optimizer":
            full[key], short[key] = complete_optimizer(value, allow=tree["allow_targets"])
        elif key == "halt" and value is not None:
            node, _ = complete({"_target_": HALT, **value}, where=key)
            build(node, where=key)  # its own checks, before anything is trained
            full[key] = short[key] = {name: node[name] for name in node if name != "_target_"}
        elif key in GROUPS and GROUPS[key].placed:
            full[key], short[key] = _complete_placed(key, value, overrides, allow=tree["allow_targets"])
        else:
            full[key], short[key] = complete(value, allow=tree["allow_targets"], where=key)
    _check_demands(full)
    _check_distillation(full)
    label = label_of(full, choices) if tree["name"] is None else str(tree["name"])
    if not re.fullmatch(r"[\w.+=-]{1,80}", label, re.ASCII):
        raise ConfigError(f"name={label}: use 1 to 80 letters, digits and . _ + = -, or null for the name of what it is")
    ignored = ignored_keys(full)
    return Plan(full, short, label, address_of(short, ignored), ignored, tuple(overrides), teacher and teacher.path)


def plain(cfg: Any) -> dict[str, Any]:
    """A composed config as plain data, its references resolved. A resolver (`${oc.env:NAME}`) is refused outside `paths`.

    A record holds the whole configuration and travels, so what a config reads from its machine would travel too.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException

    if not OmegaConf.is_config(cfg):
        return dict(cfg)
    for path, text in _texts(OmegaConf.to_container(cfg, resolve=False)):
        if "${" in REFERENCE.sub("", text) and path.partition(".")[0] not in ("paths", "hydra"):
            raise ConfigError(f"{path}: calls a resolver of OmegaConf, which is allowed in paths alone; give the value itself")
    try:
        tree = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except InterpolationKeyError as error:
        missing = str(error).splitlines()[0].removeprefix("Interpolation key '").removesuffix("' not found")
        raise ConfigError(f"{error.full_key}: refers to a key that is not there: {missing}") from error
    except OmegaConfBaseException as error:
        text = str(error).splitlines()[0]
        raise ConfigError(f"{error.full_key}: {text}" if error.full_key and error.full_key not in text else text) from error
    tree.pop("hydra", None)
    return tree


def _texts(node: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text of a tree with its dotted key."""
    if isinstance(node, Mapping | list):
        for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            yield from _texts(value, join(where, str(key)))
    elif isinstance(node, str):
        yield where, node


def _check_options(tree: dict[str, Any]) -> None:
    for key in having(several=True, optional=True):
        tree[key] = tree.get(key) or {}  # of `evaluator=[]`
    for key in having(several=False, optional=True):
        tree.setdefault(key, {})  # a record from before the group was there
    options = {}
    for option in dataclasses.fields(Options):
        options[option.name] = option.type
        if option.default is None:
            tree.setdefault(option.name, None)  # a record from before the option was there
    for key, value in tree.items():
        if group := GROUPS.get(key):
            if value is not None and not isinstance(value, Mapping):
                raise ConfigError(f"{key}={value}: must name a file of configs/{key}")
            if not (group.several or group.optional) and "_target_" not in (value or {}):
                raise ConfigError(f"{key}: no _target_; choose one: {', '.join(group_choices(key))}")
            continue
        if key not in options:
            raise ConfigError(f"unknown key {key}; {nearest(key, [*GROUPS, *LAYERS, *options])}")
        if not conforms(value, options[key]):
            raise ConfigError(f"{key}={value}: must be {describe(options[key])}")
        check_numbers(value, key)
    for key in (*options, *GROUPS):
        if key not in tree:
            raise ConfigError(f"{key}: missing; it cannot be deleted")
    for key in tree["paths"]:
        if key != "outputs":
            raise ConfigError(f"unknown key paths.{key}; nearest: paths.outputs")
    if "outputs" not in tree["paths"]:
        raise ConfigError("paths.outputs: missing; it cannot be deleted")
    if not tree["paths"]["outputs"].strip():
        raise ConfigError("paths.outputs: must name a folder; . is this one")
    for key in ("seed", "retries"):
        if tree[key] < 0:
            raise ConfigError(f"{key}={tree[key]}: must be 0 or more")
    families = tuple(dict.fromkeys((*METRICS, *tree["evaluator"])))
    family, _, metric = tree["objective"].partition("/")
    others = any(is_component(entry, "evaluator") and not entry["_target_"].startswith("attnlab.") for entry in tree["evaluator"].values())
    if not metric or not (family in families or others):  # an evaluator of somebody else may call its metrics as it likes
        raise ConfigError(f"objective={tree['objective']}: must be a metric such as test/acc; they begin with {', '.join(families)}")
    check_allowed(tree["allow_targets"])


def _complete_placed(
    group: str, entries: Mapping[str, Any], words: Sequence[str], *, allow: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """`complete` of every entry of a placed group, with its keys named as the command line does: `attention.rect.sharpness` if it can."""
    full, short = {}, {}
    for name, entry in entries.items():
        kind = "penalty" if "penalty" in entry else "module"
        where = f"{group}.{name}"
        spelt = f"{where}.{kind}" if names(words, f"{where}.{kind}") else where
        full_node, short_node = complete(entry[kind], allow=allow, where=spelt)
        full[name], short[name] = {**entry, kind: full_node}, {**entry, kind: short_node}
    return full, short


def _check_demands(full: Mapping[str, Any]) -> None:
    """What one group asks of another, as far as it can be seen before anything is built."""
    loss = locate(full["loss"]["_target_"], allow=full["allow_targets"])
    name = full["loss"]["_target_"].rpartition(".")[2]
    _check_unlabelled(full, loss)
    if getattr(locate(full["data"]["_target_"], allow=full["allow_targets"]), "several_labels", False):
        _check_several_labels(full, loss)
    for group in having(placed=True):
        for key, entry in full[group].items():
            if entry.get("writes") and not getattr(loss, "soft_targets", False):
                raise ConfigError(f"{group}={key} makes soft labels, which loss {name} cannot take; use loss=ce or drop {group}={key}")
            at = entry.get("at", [])
            if entry.get("how") == "replace" and "fc" in (at if isinstance(at, list) else [at]) and getattr(loss, "needs_fc", False):
                raise ConfigError(f"loss {name} needs the Linear at fc, which {group}={key} replaces; use loss=ce or another {group}")


def _check_unlabelled(full: Mapping[str, Any], loss: Any) -> None:
    """Where images are without a label, by data.labels or by an option of the algorithm (`leaves_out`), whoever meets them must know what
    to do with them."""
    algorithm = locate(full["algorithm"]["_target_"], allow=full["allow_targets"])
    options = [key for key in getattr(algorithm, "leaves_out", ()) if full["algorithm"].get(key)]
    found = f"algorithm.{options[0]} leaves images unlabelled" if options else ""
    if (number := full["data"].get("labels")) is not None:
        found = "data.labels leaves images unlabelled"
        if not getattr(algorithm, "takes_unlabelled", False):
            advice = f"use algorithm=mean_teacher, or data.limit={number} to train on the labelled ones alone"
            raise ConfigError(f"{found}, which algorithm {algorithm.__name__} cannot use; {advice}")
    if not found:
        return
    if not getattr(loss, "takes_unlabelled", False):
        raise ConfigError(f"{found}, which loss {loss.__name__} cannot take; use loss=ce")
    for group in (*having(placed=True), "distillation"):
        for key, entry in full[group].items():
            part = locate(entry.get("module", entry.get("penalty", entry))["_target_"], allow=full["allow_targets"])
            asked = inspect.signature(getattr(part, "forward", part)).parameters
            if "target" in (*entry.get("reads", []), *asked):
                raise ConfigError(f"{found}, and {group}={key} reads every image's label; drop one of them")


def _check_several_labels(full: Mapping[str, Any], loss: Any) -> None:
    """Images of several classes: whoever is given labels must know what to do with sets of classes, and says so (`takes_label_sets`)."""
    found = f"data {full['data']['_target_'].rpartition('.')[2]} has several classes an image"
    if not getattr(loss, "takes_label_sets", False):
        raise ConfigError(f"{found}, which loss {loss.__name__} cannot take; use loss=sigmoid")
    for key in ("per_class", "imbalance", "label_noise", "labels", "only"):
        if full["data"].get(key) is not None:
            raise ConfigError(f"{found}, and data.{key} is of sets with one; leave it null")

    def refuse(words: str, node: Mapping[str, Any], *, remedy: str = "drop it") -> None:
        part = locate(node["_target_"], allow=full["allow_targets"])
        if not getattr(part, "takes_label_sets", False):
            raise ConfigError(f"{found}, and {words} looks at one; {remedy}")

    refuse(f"algorithm {full['algorithm']['_target_'].rpartition('.')[2]}", full["algorithm"], remedy="use algorithm=supervised")
    for name, node in full["evaluator"].items():
        refuse(f"evaluator={name}", node, remedy="use evaluator=[ood,figures]")
    for group in (*having(placed=True), "distillation", "callback"):
        for key, entry in full[group].items():
            node = entry.get("module", entry.get("penalty", entry))
            part = locate(node["_target_"], allow=full["allow_targets"])
            asked = inspect.signature(getattr(part, "forward", part)).parameters
            if "target" in (*entry.get("reads", []), *asked) or getattr(part, "one_label", False):
                refuse(f"{group}={key}", node)


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
