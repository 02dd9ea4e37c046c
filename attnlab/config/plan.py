"""Plan: a checked configuration and its address. A run is its configuration: the same command finds the same run."""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from attnlab.config.groups import GROUPS, having
from attnlab.config.targets import config_dir, locate

# the options that cannot change a run's numbers; a target adds parameters of its own by a class attribute of this name
NOT_IDENTITY = ("name", "force", "check", "retries", "fail_fast", "same_code", "objective", "halt", "allow_targets", "paths")
# what every entry of a group has unless it says otherwise
IMPLIED = {"_partial_": True, "how": "after"}


@dataclasses.dataclass(kw_only=True)
class Options:
    """The top-level keys that are no groups, and their types."""

    seed: int = 0
    name: str | None = None
    force: bool = False
    check: bool = False
    retries: int = 0
    fail_fast: bool = False
    same_code: bool | None = None
    objective: str = "test/acc"
    halt: dict | None = None
    teacher: str | None = None
    allow_targets: list[str] = dataclasses.field(default_factory=list)
    paths: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A checked configuration, plain data: `full` goes into the record, `short` into the address, `label` into the folder's name.

    address: eight hex digits over everything that can change the numbers. ignored: dotted keys that cannot. teacher: where the run or the
    file that `teacher=` names was found; `full` and `short` have its identity.
    """

    full: dict[str, Any]
    short: dict[str, Any]
    label: str
    address: str
    ignored: tuple[str, ...]
    overrides: tuple[str, ...] = ()
    teacher: str | None = None

    @property
    def run_id(self) -> str:
        return f"{self.label}-{self.address}"

    def changed(self, **fields: Any) -> "Plan":
        """Another plan, with the address that belongs to it."""
        plan = dataclasses.replace(self, **fields)
        return dataclasses.replace(plan, address=address_of(plan.short, plan.ignored))

    @property
    def not_trained_on(self) -> tuple[str, ...]:
        """Dotted keys that cannot change the trained network: what is asked of it afterwards, and what cannot change anything."""
        target = locate(self.full["data"]["_target_"], allow=self.full["allow_targets"], where="data")
        return (*self.ignored, *having(trains=False), *(f"data.{key}" for key in getattr(target, "AFTER_TRAINING", ())))

    @property
    def training(self) -> str:
        """Eight hex digits over all the rest: runs that agree in it need one training."""
        return address_of(self.short, self.not_trained_on)

    @property
    def allow(self) -> tuple[str, ...]:
        return tuple(self.full["allow_targets"])


def address_of(short: Mapping[str, Any], ignored: Sequence[str]) -> str:
    """Eight hex digits of a hash over a configuration without its `ignored` keys.

    It does not know where code lives (`_canonical`), nor of what is not there: an empty group, an option that is null. So code can move,
    and a group or an option can come, without orphaning the runs there are.
    """
    kept: dict[str, Any] = {}
    for key, value in short.items():
        if key in ignored or value is None or value == {}:
            continue
        if isinstance(value, Mapping):
            value = {name: entry for name, entry in value.items() if f"{key}.{name}" not in ignored}
        value = _canonical(value)
        group = GROUPS.get(key)
        if group and group.ordered:
            value = [[name, entry] for name, entry in value.items()]
        kept[key] = value
    text = json.dumps(kept, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def ignored_keys(full: Mapping[str, Any]) -> tuple[str, ...]:
    """Dotted keys that cannot change the numbers."""
    found = [*NOT_IDENTITY, *having(counts=False)]
    for group in having(several=False, counts=True):
        node = full.get(group)
        if isinstance(node, Mapping) and "_target_" in node:
            target = locate(node["_target_"], allow=full["allow_targets"], where=group)
            found += [f"{group}.{key}" for key in getattr(target, "NOT_IDENTITY", ())]
    return tuple(found)


def _canonical(node: Any) -> Any:
    """1 and 1.0 are one number; tuples are lists; a target of ours is its name, wherever its module is; what is implied is not said."""
    if isinstance(node, Mapping):
        kept = {key: value for key, value in node.items() if key not in IMPLIED or value != IMPLIED[key]}
        return {str(key): own_name(value) if key == "_target_" else _canonical(value) for key, value in kept.items()}
    if isinstance(node, list | tuple):
        return [_canonical(value) for value in node]
    if isinstance(node, float) and node.is_integer():
        return int(node)
    return node


def own_name(target: Any) -> Any:
    """`attnlab.attention.rect.RectAttention` -> `RectAttention`; a target of another package as it is."""
    return target.rpartition(".")[2] if isinstance(target, str) and target.startswith("attnlab.") else target


def label_of(full: Mapping[str, Any], choices: Mapping[str, Any]) -> str:
    """`digits-resnet18-w16-rect-e200-s0`: data, model, its width and the epochs where they are not those of their files, components, and
    what differs from the usual loss and algorithm.

    A folder of images goes by its own name, a model of timm by timm's. Folders are found by their address: labels are free to change.
    """
    choice = {name: str(choices.get(name) or name) for name in GROUPS}
    parts = [own_word(full["data"], "path") or choice["data"], own_word(full["model"], "name") or choice["model"]]
    parts += _departs(full, "model", "width", choice["model"], "w")
    for name, group in GROUPS.items():
        if group.several and group.trains:
            parts += list(full[name])
        elif group.usual and choices.get(name, group.usual) != group.usual:
            parts.append(choice[name])
    stem = "-".join(part.replace("/", ".") for part in parts)[:60].rstrip("-")
    return "-".join([stem, *_departs(full, "trainer", "max_epochs", choice["trainer"], "e"), f"s{full['seed']}"])


def own_word(node: Mapping[str, Any], key: str) -> str:
    """What a node's own `path` or `name` calls it: the last part, which need not lie there, in letters that a label may have."""
    value = node.get(key)
    word = Path(value).expanduser().absolute().name if isinstance(value, str) else ""
    return re.sub(r"[^\w.+=-]+", ".", word, flags=re.ASCII).strip(".-")


def _departs(full: Mapping[str, Any], group: str, key: str, choice: str, sign: str) -> list[str]:
    """`w16` where a number of a group is not the one that its file says."""
    value = full[group].get(key)
    return [f"{sign}{value}"] if isinstance(value, int) and value != _said(group, choice).get(key) else []


@functools.cache
def _said(group: str, choice: str) -> Mapping[str, Any]:
    """The keys of a file of configs; none of one that somebody else brings."""
    import yaml

    path = config_dir() / group / f"{choice}.yaml"
    return yaml.safe_load(path.read_text()) or {} if path.is_file() else {}


def outputs(plan: Plan) -> Path:
    return Path(plan.full["paths"]["outputs"])
