"""The plans of many cells of a table. Hydra composes a row and a column once, not every pair of them."""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attnlab.config.checks import check, plain
from attnlab.config.compose import composing, explain, loosen, without_hydra
from attnlab.config.groups import GROUPS, having
from attnlab.config.plan import Plan
from attnlab.config.targets import ConfigError, config_dir
from attnlab.config.teacher import TRAINING

CHOICE = re.compile(r"(\w+)=(\[[\w,]+\]|\w+)")
TAUGHT = re.compile(rf"teacher=({re.escape(TRAINING)}[0-9a-f]+)")  # as a table names a row's teacher: an option that nothing else refers to
SEVERAL = having(several=True)
ELSEWHERE = re.compile(r"[~+]*(hydra\b|[\w/]+@)")  # other folders of configs, other places of a group's node
Composed = tuple[dict[str, Any], dict[str, Any]]  # a config without Hydra's own part, its references as they stand; the groups' choices


def compose_cells(cells: Sequence[Sequence[str]], seeds: Sequence[int]) -> list[list[Plan]]:
    """The plans of every cell's overrides under every seed.

    Each is what `attnlab.config.compose.compose([*cell, f"seed={seed}"])` gives.
    """
    with composing():
        composer = Composer()
        return [composer.plans(tuple(cell), tuple(seeds)) for cell in cells]


class Composer:
    """Compositions by their overrides, for as long as Hydra is set up.

    A cell that chooses from groups is put together from the composition of all its other overrides: the node of a group is that of its own
    choice, where a choice can change nothing else (`_alone`). It is what the choice's file says, where nothing else says anything of the
    group (`_as_in_its_file`), and else one composition a choice.
    """

    def __init__(self) -> None:
        self.plans = functools.cache(self.plans)  # of columns that one override has made alike
        self.composed = functools.cache(self.composed)
        text = (config_dir() / "train.yaml").read_text().partition("_self_")[0]
        self.referred_to = set(re.findall(r"\$\{(\w+)\}", text))  # by the defaults list: another file is read by their choice

    def plans(self, overrides: tuple[str, ...], seeds: tuple[int, ...]) -> list[Plan]:
        raw, choices = self.put_together(overrides)
        return [check(tree, choices=choices, overrides=[*overrides, f"seed={seed}"]) for seed, tree in _by_seed(raw, seeds)]

    def put_together(self, overrides: tuple[str, ...]) -> Composed:
        if (teacher := TAUGHT.fullmatch(overrides[-1] if overrides else "")) and not any("teacher" in word for word in overrides[:-1]):
            raw, choices = self.put_together(overrides[:-1])
            return {**raw, "teacher": teacher[1]}, choices
        groups = {word: word.partition("=")[0] for word in overrides if self._alone(word)}
        rest = tuple(word for word in overrides if word not in groups)
        if not groups or len(set(groups.values())) < len(groups) or any(ELSEWHERE.match(word) for word in overrides):
            return self.composed(overrides)
        try:
            raw, choices = map(dict, self.composed(rest))
        except ConfigError:  # of what a choice brings, perhaps
            return self.composed(overrides)
        for word, group in groups.items():
            names = word.partition("=")[2]
            if (group in SEVERAL or "[" not in names) and self._as_in_its_file(group, rest):
                raw[group], choices[group] = _content(group, names), None if "[" in names else names  # as Hydra has it
            else:
                part, chosen = self.composed((*rest, word))
                raw[group], choices[group] = part[group], chosen.get(group)
        return raw, choices

    def composed(self, overrides: tuple[str, ...]) -> Composed:
        import hydra
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        try:
            cfg = hydra.compose("train", overrides=loosen(overrides), return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(explain(error)) from error
        return OmegaConf.to_container(without_hydra(cfg), resolve=False), dict(cfg.hydra.runtime.choices)

    def _alone(self, word: str) -> bool:
        """Whether an override chooses files of ours that say nothing of other groups, from a group that no other choice depends on."""
        found = CHOICE.fullmatch(word)
        if not found or found[1] not in GROUPS or found[1] in self.referred_to:
            return False
        return all(_own(found[1], name) for name in found[2].strip("[]").split(","))

    def _as_in_its_file(self, group: str, overrides: tuple[str, ...]) -> bool:
        """Whether these overrides leave the group's node as the file of its choice has it."""
        if any(re.match(rf"[~+]*{group}\b", word) for word in overrides):
            return False
        raw, choices = self.composed(overrides)
        return _own(group, choices.get(group) or "") and raw.get(group) == _content(group, choices[group])


@functools.cache
def _content(group: str, names: str) -> Any:
    """What a group's node is by the file of its choice, or files, each of which has a key of its own."""
    from omegaconf import OmegaConf

    files = [OmegaConf.load(config_dir() / group / f"{name}.yaml") for name in names.strip("[]").split(",")]
    return OmegaConf.to_container(OmegaConf.merge(*files), resolve=False)


@functools.cache
def _own(group: str, name: str) -> bool:
    path = config_dir() / group / f"{name}.yaml"
    return path.is_file() and not re.search(r"^defaults:|@package", path.read_text(), flags=re.M)


def _by_seed(raw: Mapping[str, Any], seeds: Sequence[int]) -> list[tuple[int, dict[str, Any]]]:
    """The tree of every seed, its references resolved: once, where all that follows the seed is written `${seed}`."""
    from omegaconf import OmegaConf

    places = _places_of_seed(raw)
    if places is None:
        return [(seed, plain(OmegaConf.create({**raw, "seed": seed}))) for seed in seeds]
    first, found = plain(OmegaConf.create({**raw, "seed": 0})), []
    for seed in seeds:
        found.append((seed, tree := _copied(first)))
        for *above, key in [("seed",), *places]:
            functools.reduce(lambda node, name: node[name], above, tree)[key] = seed
    return found


def _copied(node: Any) -> Any:
    if isinstance(node, Mapping):
        return {key: _copied(value) for key, value in node.items()}
    return [_copied(value) for value in node] if isinstance(node, list) else node


def _places_of_seed(node: Any, where: tuple = ()) -> list[tuple] | None:
    """Paths of the texts `${seed}`; None where another text may refer to the seed, through others perhaps."""
    if isinstance(node, Mapping | list):
        below = [_places_of_seed(value, (*where, key)) for key, value in (node.items() if isinstance(node, Mapping) else enumerate(node))]
        return None if None in below else [path for paths in below for path in paths]
    if not isinstance(node, str) or "${" not in node:
        return []
    return [where] if node == "${seed}" else None if "seed" in node else []
