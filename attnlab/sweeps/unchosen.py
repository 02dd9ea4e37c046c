"""Overrides of components that some jobs of a sweep choose and others do not: `attention=none,rect attention.rect.at=layer1,layer2`.

`teacher=RUN` is such an override: it belongs to the jobs that choose a distillation term (`distillation=none,kd teacher=RUN`).
They are dropped from the jobs that do not choose the component; what no job chooses stays, and is the error that it is in a single run.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attnlab.config.compose import typed
from attnlab.config.entries import is_component
from attnlab.config.groups import having

TEACHER = "teacher"


def chosen_components(config: Mapping[str, Any]) -> set[str]:
    """The components of a composed config: {"attention.rect", "ood.msp"}; and "teacher", where something is distilled."""
    groups = ((group, config.get(group) or {}) for group in having(several=True))
    found = {f"{group}.{name}" for group, entries in groups for name, entry in entries.items() if is_component(entry, group)}
    return found | ({TEACHER} if any(name.startswith("distillation.") for name in found) else set())


def component_of(override: str) -> str:
    """The component that an override names: `++attention.rect.at=layer1` -> `attention.rect`; empty for any other override."""
    group, *parts = typed(override).lstrip("+").partition("=")[0].split(".")
    if group == TEACHER:
        return TEACHER
    return f"{group}.{parts[0]}" if parts and group in having(several=True) else ""


def without_unchosen(overrides: Sequence[str], chosen: Iterable[str], elsewhere: Iterable[str]) -> tuple[str, ...]:
    """The overrides of a job that chooses `chosen`, less those of components that it does not, but another job does (`elsewhere`)."""
    return tuple(text for text in overrides if component_of(text) not in set(elsewhere) - set(chosen))
