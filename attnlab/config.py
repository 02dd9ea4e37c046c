"""Config: from a command line to a checked configuration and its address, and Hydra's errors in one line each.

A run is its configuration: `address` hashes what can change its numbers, so the same command finds the same run.
"""

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnlab.build import ConfigError, complete, config_dir, conforms, describe, locate, parameters
from attnlab.names import HOWS, KEYS, nearest
from attnlab.optimizer_groups import complete_optimizer

log = logging.getLogger("attnlab")

# groups with several choices: files keyed by their own name; order is kept in the address, since it can matter
PLACED = ("attention", "regularizer")
KEYED = (*PLACED, "ood")
FLAT = ("data", "model", "loss", "optimizer", "schedule", "trainer", "logger")

# what cannot change a run's numbers; a target adds parameters of its own by a class attribute of this name
NOT_IDENTITY = ("name", "force", "check", "retries", "fail_fast", "objective", "allow_targets", "paths", "logger")


@dataclasses.dataclass(kw_only=True)
class Options:
    """The top-level keys that are no groups, and their types."""

    seed: int = 0
    name: str | None = None
    force: bool = False
    check: bool = False
    retries: int = 0
    fail_fast: bool = False
    objective: str = "test/acc"
    allow_targets: list[str] = dataclasses.field(default_factory=list)
    paths: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A checked configuration, plain data: `full` goes into the record, `short` into the address, `label` into the folder's name.

    address: eight hex digits over everything that can change the numbers. ignored: dotted keys that cannot.
    """

    full: dict[str, Any]
    short: dict[str, Any]
    label: str
    address: str
    ignored: tuple[str, ...]
    overrides: tuple[str, ...] = ()

    @property
    def run_id(self) -> str:
        return f"{self.label}-{self.address}"

    def changed(self, **fields: Any) -> "Plan":
        """Another plan, with the address that belongs to it."""
        plan = dataclasses.replace(self, **fields)
        return dataclasses.replace(plan, address=_address(plan.short, plan.ignored))

    @property
    def not_trained_on(self) -> tuple[str, ...]:
        """Dotted keys that cannot change the trained network: the OOD heads and sets, and what cannot change anything."""
        target = locate(self.full["data"]["_target_"], allow=self.full["allow_targets"], where="data")
        return (*self.ignored, "ood", *(f"data.{key}" for key in getattr(target, "AFTER_TRAINING", ())))

    @property
    def training(self) -> str:
        """Eight hex digits over all the rest: runs that agree in it need one training."""
        return _address(self.short, self.not_trained_on)

    @property
    def allow(self) -> tuple[str, ...]:
        return tuple(self.full["allow_targets"])


def _address(short: Mapping[str, Any], ignored: Sequence[str]) -> str:
    kept = {key: value for key, value in short.items() if key not in ignored}
    for group in FLAT:
        if isinstance(kept.get(group), Mapping):
            kept[group] = {key: value for key, value in kept[group].items() if f"{group}.{key}" not in ignored}
    for group in PLACED:
        kept[group] = [[name, value] for name, value in kept.get(group, {}).items()]
    text = json.dumps(_canonical(kept), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _ignored(full: Mapping[str, Any]) -> tuple[str, ...]:
    """Dotted keys that cannot change the numbers."""
    found = list(NOT_IDENTITY)
    for group in FLAT:
        node = full.get(group)
        if isinstance(node, Mapping) and "_target_" in node:
            target = locate(node["_target_"], allow=full["allow_targets"], where=group)
            found += [f"{group}.{key}" for key in getattr(target, "NOT_IDENTITY", ())]
    return tuple(found)


def _canonical(node: Any) -> Any:
    """1 and 1.0 are one number; tuples are lists."""
    if isinstance(node, Mapping):
        return {str(key): _canonical(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [_canonical(value) for value in node]
    if isinstance(node, float) and node.is_integer():
        return int(node)
    return node


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
    full, short = {}, {}
    for key, value in tree.items():
        if key == "optimizer":
            full[key], short[key] = complete_optimizer(value, allow=tree["allow_targets"])
        else:
            full[key], short[key] = complete(value, allow=tree["allow_targets"], where=key)
    _check_demands(full)
    label = tree["name"] or _label(full, choices)
    if not re.fullmatch(r"[\w.+=-]{1,80}", label):
        raise ConfigError(f"name={label}: use 1 to 80 letters, digits and . _ + = -")
    ignored = _ignored(full)
    return Plan(full, short, label, _address(short, ignored), ignored, tuple(overrides))


def _check_options(tree: Mapping[str, Any]) -> None:

    options = {field.name: field.type for field in dataclasses.fields(Options)}
    groups = [*FLAT, *KEYED]
    for key, value in tree.items():
        if key in groups:
            if value is not None and not isinstance(value, Mapping):
                raise ConfigError(f"{key}={value}: must name a file of configs/{key}")
            if key in FLAT and value and "_target_" not in value and key != "logger":
                raise ConfigError(f"{key}: no _target_; choose one: {', '.join(group_choices(key))}")
            continue
        if key not in options:
            raise ConfigError(f"unknown key {key}; {nearest(key, [*groups, *options])}")
        if not conforms(value, options[key]):
            raise ConfigError(f"{key}={value}: must be {describe(options[key])}")
    for key in (*options, *groups):
        if key not in tree:
            raise ConfigError(f"{key}: missing; it cannot be deleted")
    for key in tree["paths"]:
        if key != "outputs":
            raise ConfigError(f"unknown key paths.{key}; nearest: paths.outputs")
    if tree["seed"] < 0:
        raise ConfigError(f"seed={tree['seed']}: must be 0 or more")


def _check_keyed(tree: Mapping[str, Any]) -> None:
    """Every entry of attention, regularizer and ood is a whole component; an override of one that was not chosen leaves a torso."""

    for group in KEYED:
        chosen = [name for name, entry in tree[group].items() if _is_whole(entry, group)]
        for name, entry in tree[group].items():
            if name not in chosen:
                rest = _leaf(name, entry)
                names = [*chosen, *group_choices(group)]
                near = f"{group}={name} chooses it" if name in names else nearest(name, names)
                raise ConfigError(f"{group}.{rest}: {name} is not chosen ({group}={_listed(chosen)}); {near}")
            if group == "ood":
                continue
            known = ("penalty",) if "penalty" in entry else KEYS
            for key in entry:
                if key not in known:
                    inner = entry.get("module", entry.get("penalty"))
                    raise ConfigError(f"unknown key {group}.{name}.{key}; {_near_entry(group, name, key, known, inner)}")
            if entry.get("how", "after") not in HOWS:
                raise ConfigError(f"{group}.{name}.how={entry['how']}: must be one of {', '.join(HOWS)}")


def _is_whole(entry: Any, group: str) -> bool:
    nodes = [entry] if group == "ood" else [entry.get("module"), entry.get("penalty")] if isinstance(entry, Mapping) else []
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
    for group in PLACED:
        for key, entry in full[group].items():
            if entry.get("writes") and not getattr(loss, "soft_targets", False):
                raise ConfigError(f"{group}={key} makes soft labels, which loss {name} cannot take; use loss=ce or drop {group}={key}")
            at = entry.get("at")
            if entry.get("how") == "replace" and "fc" in ([at] if isinstance(at, str) else at or []) and getattr(loss, "needs_fc", False):
                raise ConfigError(f"loss {name} needs the Linear at fc, which {group}={key} replaces; use loss=ce or another {group}")


def _label(full: Mapping[str, Any], choices: Mapping[str, Any]) -> str:
    parts = [str(choices.get("data", "data")), str(choices.get("model", "model"))]
    for group in PLACED:
        parts += list(full[group])
    if choices.get("loss", "ce") != "ce":
        parts.append(str(choices["loss"]))
    label = "-".join(part.replace("/", ".") for part in parts)
    return f"{label[:64].rstrip('-')}-s{full['seed']}"


def _leaf(name: str, entry: Any) -> str:
    while isinstance(entry, Mapping) and entry:
        key, entry = next(iter(entry.items()))
        name = f"{name}.{key}"
    return name


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"[{','.join(names)}]" if names else "none"


def group_choices(group: str) -> list[str]:
    folder = config_dir() / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def group_names() -> list[str]:
    return sorted(path.name for path in config_dir().iterdir() if path.is_dir() and path.name != "hydra")


def loosen(arguments: Sequence[str]) -> list[str]:
    """`a.b=1` and `+a.b=1` become `++a.b=1`: Hydra takes keys that only a signature knows; `check` refuses those that nothing knows."""
    return [re.sub(r"^\+?(?!hydra\.)(?=[A-Za-z_]\w*(\.[\w-]+)+=)", "++", text) for text in arguments]


def typed(override: str) -> str:
    """An override as a person types it: without what `loosen` put before it. `+experiment=...` keeps its `+`, which Hydra asks for."""
    return override.removeprefix("++")


def compose(overrides: Sequence[str] = (), *, config_name: str = "train") -> Plan:
    """The checked plan of a list of overrides, without running anything: `compose(["model=resnet18", "seed=1"]).run_id`."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    GlobalHydra.instance().clear()
    try:
        with hydra.initialize_config_dir(str(config_dir().resolve()), **hydra_version()):
            cfg = hydra.compose(config_name, overrides=loosen(overrides), return_hydra_config=True)
            return check(without_hydra(cfg), choices=cfg.hydra.runtime.choices, overrides=overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(explain(error)) from error


def without_hydra(cfg: Any) -> Any:
    """A composed config without Hydra's own part; `check` takes it."""
    from omegaconf import OmegaConf, open_dict

    job = OmegaConf.masked_copy(cfg, [key for key in cfg if key != "hydra"])
    with open_dict(job):
        return job


def hydra_version() -> dict[str, str]:
    """`version_base` is needed before Hydra 1.4 and deprecated from it on."""
    import hydra

    return {"version_base": "1.3"} if tuple(map(int, hydra.__version__.split(".")[:2])) < (1, 4) else {}


def explain(error: BaseException) -> str:
    """Hydra's and OmegaConf's messages as one line with key and remedy."""

    text = " ".join(str(error).split())
    if found := re.search(r"Could not (?:find|load) '([^']*)'", text):
        group, _, choice = found[1].rpartition("/")
        if choice and group and not group.startswith("hydra"):
            known = group_choices(group)
            near = nearest(choice, known) if known else f"{group} is no group"
            return f"{group}={choice}: there is no such {group}; {near}"
        options = re.search(r"Available options in '[^']*':(.*?)Config search path", text)
        known = f"; known: {', '.join(options[1].split())}" if options else ""
        return f"{group}={choice}: there is no such choice{known}"
    if found := re.search(r"Could not override '([^']*)'", text):
        return f"unknown key {found[1]}; {nearest(found[1], _top_level())}"
    if found := re.search(r"Could not delete.*?'([^']*)'|Could not delete from config\. '?(\S+?)'? does not exist", text):
        return f"~{found[1] or found[2]}: there is nothing to delete under that key"
    return text.split(" See https://hydra.cc")[0].split(" Config search path:")[0]


def _top_level() -> list[str]:
    return [*FLAT, *KEYED, *(field.name for field in dataclasses.fields(Options))]


def outputs(plan: Plan) -> Path:
    return Path(plan.full["paths"]["outputs"])
