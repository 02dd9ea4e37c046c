"""Overrides: which keys a command line names, and which choices of a group."""

import dataclasses
import functools
import re
from collections.abc import Sequence

from attnlab.config.groups import GROUPS
from attnlab.config.plan import Options
from attnlab.config.targets import ConfigError

OPTIONS = frozenset(field.name for field in dataclasses.fields(Options))
FOREIGN = ("allow_targets", "hydra.searchpath")  # code and configs of somebody else
PERMISSIONS = ("allow_targets", "hydra", "paths")  # whose code may run, where configs are read, where files are written
NO_NAME = re.compile(r"null|true|false|nan|[-+]?(inf|[\d._]*\d[\d._]*(e[-+]?\d+)?)", re.IGNORECASE)  # what Hydra reads as something else


@functools.lru_cache(4096)
def key_of(word: str) -> str:
    """The key of an override: `++attention.rect.at=layer3` -> `attention.rect.at`, `~model` -> `model`."""
    return word.partition("=")[0].strip().lstrip("+~").strip()


def permits(word: str) -> bool:
    """Whether an override sets one of PERMISSIONS, or is an option of Hydra's. These count on a command line alone: what a record or a
    table says of them is somebody else's word."""
    places = key_of(word).split("@")  # `model@hydra.callbacks` is a file of a group, put elsewhere
    return any(re.split(r"[^\w]", place.strip(), maxsplit=1)[0] in PERMISSIONS for place in places) or word.strip().startswith("-")


def check_inside(word: str) -> None:
    """ConfigError for a choice that leads out of the folders of configs, or is read from the machine: `model=../../theirs`."""
    group, value = key_of(word).partition("@")[0], word.partition("=")[2]
    parts = re.split(r"[\s\[\],'\"/\\]+", value)
    if group not in OPTIONS and "." not in group and ("${" in value or ".." in parts or value.lstrip(" ['\"").startswith("/")):
        raise ConfigError(f"{word}: must name a file of configs/{group}; other folders come by hydra.searchpath=[FOLDER]")


def names(words: Sequence[str], path: str) -> bool:
    """Whether an override names a dotted key, or one inside it."""
    return any(key == path or key.startswith(path + ".") for key in map(key_of, words))


def replaces(words: Sequence[str], group: str) -> bool:
    """Whether the command line chooses a group, in place of what a file chose."""
    return any(key_of(word) == group for word in words)


def check_lost(words: Sequence[str]) -> None:
    """ConfigError for a key that a later word replaces with all that is in it (`a.b.c=1 a.b=2`: Hydra would forget the first), and for one
    that is deleted and then set (`~paths paths.outputs=x`)."""
    for i, word in enumerate(words):
        for later in words[i + 1 :]:
            if word.startswith("~") and f"{key_of(later)}.".startswith(f"{key_of(word)}."):
                raise ConfigError(f"{word}: {later} sets what it deletes; leave one of them out")
            whole, value = key_of(later), later.partition("=")[2].strip()
            if key_of(word).startswith(whole + ".") and "." in whole and not value.startswith("{"):
                raise ConfigError(f"{key_of(word)}: {whole}={value} comes after it and replaces it; leave one of them out")


def check_choices(words: Sequence[str]) -> None:
    """ConfigError for a component named twice, or beside `none`, and for a list where a group takes one, where Hydra would take the last;
    and for what is no name, such as 3 or null, on which Hydra stumbles."""
    for word in words:
        value = word.partition("=")[2]
        group = GROUPS.get(key_of(word))
        nested = re.search(r"\[[^\]]*[\[{]", value)
        if group is not None and (nested or any(NO_NAME.fullmatch(choice) for choice in re.split(r"[\[\],\s()]+", value))):
            raise ConfigError(f"{word}: must name a file of configs/{group.name}")
        if group is None or not (value.startswith("[") and value.endswith("]")):
            continue
        choices = [choice.strip(" '\"") for choice in value[1:-1].split(",") if choice.strip()]
        if not group.several:
            raise ConfigError(f"{word}: {group.name} takes one choice, such as {group.name}={choices[0] if choices else 'NAME'}")
        for i, choice in enumerate(choices):
            if choice in choices[:i]:
                raise ConfigError(f"{word}: {choice} is named twice; a second one needs a name of its own")
            if choice == "none" and len(choices) > 1:
                raise ConfigError(f"{word}: none stands alone")
