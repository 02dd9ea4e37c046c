"""A run's configuration as a logger's reader filters and groups by it: names at the top, everything below `config`."""

import re
from typing import Any

from attnlab.config.groups import GROUPS
from attnlab.config.overrides import OPTIONS, key_of, permits
from attnlab.records.query import StoredRun

APART = ("trainer", "logger")  # groups that say where and how, and not what


def flat_key(key: str) -> str:
    """`attention.rect.sharpness` -> `attention_rect_sharpness`: to W&B a dot is a step into a mapping."""
    return re.sub(r"\W+", "_", key, flags=re.ASCII).strip("_")


def flat_config(run: StoredRun) -> dict[str, Any]:
    """What was chosen of every group in one word (`attention: rect,se`), the seed, whatever the command line set under its flat key
    (`model_width: 16`), and the whole configuration under `config`."""
    chosen = {group: run.choice(group) for group in GROUPS if group in run.config and group not in APART}
    words = [word for word in run.result.get("overrides", []) if "=" in word and not permits(word)]
    given = {key_of(word): word.partition("=")[2] for word in words}
    keys = [key for key in given if key not in GROUPS and key not in OPTIONS and not key.startswith("logger.")]
    flat = {flat_key(key): _value(given[key]) for key in keys}
    return {**flat, **chosen, "seed": run.config.get("seed"), "address": run.address, "config": run.config}


def _value(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
