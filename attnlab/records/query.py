"""Queries over records for `attnlab.runs`: filters by any key, order, and the one run that a word names."""

import fnmatch
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attnlab.config.groups import GROUPS
from attnlab.config.plan import own_word
from attnlab.config.result import INTERRUPTED, MISSING, Found, address_in, read_result, warnings_in
from attnlab.config.suggest import nearest
from attnlab.config.targets import config_dir, group_choices
from attnlab.records.index import Records

FIELDS = (
    "status",
    "run_id",
    "device",
    "epochs",
    "seconds",
    "parameters",
    "images_per_second",
    "started",
    "finished",
    "precision",
    "stage",
    "device_kind",
    "threads",
)
LESS_IS_BETTER = ("loss", "nll", "ece", "adaptive_ece", "classwise_ece", "brier", "fpr95", "fpr95_id", "error")
LESS_IS_BETTER += ("deletion", "aupc", "autvc", "class_sensitivity", "randomisation", "infidelity", "max_sensitivity")  # explanations
LESS_IS_BETTER += ("mce", "aurc", "risk_at_80", "risk_at_90", "risk_at_95")
FILTER = re.compile(r"(?P<key>[^=<>!]+?)(?P<sign>!=|<=|>=|=|<|>)(?P<value>.*)")
RUN = re.compile(r".+-[0-9a-f]{8}")


class StoredRun:
    """One record as a reader sees it; `get` finds a key of its fields, its metrics or its configuration."""

    def __init__(self, found: Found) -> None:
        self.folder, self.result, self.error = found.folder, found.result, found.error
        self.status = (
            INTERRUPTED if found.status == MISSING else found.status
        )  # a folder without result.json: stopped before it was written
        self.run_id = found.folder.name
        self.config = self.result.get("config") or {}
        self.metrics = self.result.get("metrics") or {}

    @functools.cached_property
    def leaves(self) -> dict[str, Any]:
        """The configuration by dotted keys."""
        return dict(flatten(self.config))

    @property
    def address(self) -> str:
        return address_in(self.run_id)

    def get(self, key: str) -> list[Any]:
        """The values of a key; a group has several names: that of its file, of its module, of its class."""
        if key in ("status", "run_id"):
            return [getattr(self, key)]
        if key in self.metrics:
            return [self.metrics[key]]
        if key in self.result.get("timings", {}):
            return [self.result["timings"][key]]
        if key in GROUPS and key in self.config:
            return (list(self.config[key]) or ["none"]) if GROUPS[key].several else self.names(key)
        if key in self.leaves:
            return [self.leaves[key]]
        if key in FIELDS and key in self.result:
            return [self.result[key]]
        return []

    def names(self, group: str) -> list[str]:
        node = self.config[group]
        chosen = [text.partition("=")[2] for text in self.result.get("overrides", []) if text.partition("=")[0].lstrip("+") == group]
        target = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
        return [*chosen, *target.split(".")[-2:]] if chosen or target else ["none"]

    def choice(self, group: str) -> str:
        """What was chosen of a group, in one word: `rect,se`, `ce`, the folder of `data=parquet`; empty for what is no group."""
        node = self.config.get(group)
        if group not in GROUPS or not isinstance(node, Mapping):
            return ""
        if GROUPS[group].several:
            return ",".join(node) or "none"
        target = str(node.get("_target_", ""))
        files = files_of(group).get(target, ())
        chosen = [name for name in self.names(group) if name in files]
        return own_word(node, "path") or own_word(node, "name") or next(iter([*chosen, *files[:1], *self.names(group)]))

    @property
    def warnings(self) -> list[str]:
        """Why its numbers are no result, see `attnlab.records.plausible`."""
        return warnings_in(self.result)

    @property
    def started(self) -> float:
        value = self.result.get("started")
        return value if isinstance(value, int | float) else 0.0


@functools.cache
def files_of(group: str) -> dict[str, list[str]]:
    """The choices of a group by their target."""
    import yaml

    found: dict[str, list[str]] = {}
    for name in group_choices(group):
        node = yaml.safe_load((config_dir() / group / f"{name}.yaml").read_text()) or {}
        found.setdefault(str(node.get("_target_", "")), []).append(name)
    return found


def flatten(node: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a configuration with their dotted keys."""
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from flatten(value, f"{where}.{key}" if where else str(key))
    elif where:
        yield where, node


KINDS = ("runs", "ensembles", "networks")  # folders of records: runs, several evaluated as one, networks trained elsewhere


def read_runs(outputs: Path, kinds: Sequence[str] = KINDS) -> list[StoredRun]:
    found = [one for kind in kinds for one in Records(outputs, kind).all()]
    return [StoredRun(one) for one in found if one.folder and RUN.fullmatch(one.folder.name)]


def evaluations_of(run: StoredRun) -> list[StoredRun]:
    """What attnlab.evaluate has added to a run, the oldest first."""
    found = [
        StoredRun(read_result(folder, name=run.run_id)) for folder in sorted((run.folder / "evaluations").glob("*")) if folder.is_dir()
    ]
    return sorted((one for one in found if one.result), key=lambda one: one.started)


# ---- which runs ----------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Filter:
    key: str
    sign: str
    value: str

    def fits(self, run: StoredRun) -> bool:
        found = run.get(self.key)
        if self.sign in ("=", "!="):
            hit = any(same(value, text) for value in found for text in split(self.value))
            return hit == (self.sign == "=")
        low = float(self.value)
        compare = {"<": float.__lt__, "<=": float.__le__, ">": float.__gt__, ">=": float.__ge__}[self.sign]
        return any(is_number(value) and compare(float(value), low) for value in found)


def split(text: str) -> list[str]:
    """`0,1,2` is any of them; a list in brackets is one value."""
    return [text] if text.startswith("[") else text.split(",")


def same(value: Any, text: str) -> bool:
    if is_number(value):
        try:
            return math.isclose(value, float(text), rel_tol=1e-9)
        except ValueError:
            return False
    return fnmatch.fnmatchcase(shown(value).replace(" ", ""), text.replace(" ", ""))


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def parse_filters(words: Sequence[str], runs: Sequence[StoredRun]) -> list[Filter]:
    """ValueError for what is no filter, or names a key that no run has."""
    found = []
    for word in words:
        parts = FILTER.fullmatch(word)
        if not parts:
            raise ValueError(f"{word}: is no filter; write key=value, or one of != < <= > >= for = (in quotes)")
        one = Filter(parts["key"].lstrip("+"), parts["sign"], parts["value"])
        if one.sign not in ("=", "!="):
            try:
                float(one.value)
            except ValueError:
                raise ValueError(f"{word}: {one.sign} needs a number") from None
        known_key(one.key, runs)
        found.append(one)
    return found


def known_key(key: str, runs: Sequence[StoredRun]) -> None:
    if runs and key not in FIELDS and not any(run.get(key) for run in runs):
        names = {name: None for run in runs for name in (*run.metrics, *run.config, *run.leaves)}
        raise ValueError(f"no run has the key {key}; {nearest(key, [*FIELDS, *names])}")


def less_is_better(metric: str) -> bool:
    return metric.rpartition("/")[2] in LESS_IS_BETTER or "/loss" in metric


def ordered(runs: Sequence[StoredRun], key: str | None) -> list[StoredRun]:
    """By a key, best or largest first, runs without it last; by default the newest first."""
    if key is None:
        return sorted(runs, key=lambda run: (-run.started, run.run_id))
    turned, name = key.startswith("-"), key.removeprefix("-")
    known_key(name, runs)
    small = less_is_better(name) != turned

    def rank(run: StoredRun) -> tuple:
        values = [value for value in run.get(name)[:1] if value is not None]
        if not values:
            return (2, 0, run.run_id)
        if is_number(values[0]):
            return (0, values[0] if small else -values[0], run.run_id)
        return (1, shown(values[0]), run.run_id)

    return sorted(runs, key=rank)


def find_run(word: str, runs: Sequence[StoredRun]) -> StoredRun:
    """The run that a folder, a run_id, or the beginning of an address or of a run_id names."""
    name = Path(word).name if Path(word).is_dir() else word.rstrip("/")
    hits = [run for run in runs if run.run_id == name] or [run for run in runs if run.address.startswith(name)]
    hits = hits or [run for run in runs if name and run.run_id.startswith(name)]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise ValueError(f"{word}: fits {len(hits)} runs ({', '.join(run.run_id for run in hits[:3])}, ...); give more of the address")
    close = nearest(word, [run.run_id for run in runs]) if runs else "there is none yet"
    raise ValueError(f"{word}: there is no such run; {close}")


def shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return str(value)
