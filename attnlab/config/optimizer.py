"""The optimizer node, whose `groups` give components or parameters settings of their own (see `attnlab.training.param_groups`)."""

from collections.abc import Mapping, Sequence
from typing import Any

from attnlab.config.signatures import complete
from attnlab.config.targets import ConfigError

PARAMETER_GROUPS = "groups"


def complete_optimizer(node: Mapping[str, Any], *, allow: Sequence[str] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
    """`attnlab.config.signatures.complete` of an optimizer whose `groups`, if any, are held against the same signature."""
    groups = node.get(PARAMETER_GROUPS) or {}
    own = {key: value for key, value in node.items() if key != PARAMETER_GROUPS}
    full, short = complete(own, allow=allow, where="optimizer")
    if not isinstance(groups, Mapping):
        raise ConfigError(
            f"optimizer.{PARAMETER_GROUPS}={groups}: must be names with settings, such as optimizer.{PARAMETER_GROUPS}.NAME.lr=1e-4"
        )
    own_groups = {}
    for name, options in groups.items():
        where = f"optimizer.{PARAMETER_GROUPS}.{name}"
        if not isinstance(options, Mapping) or not options:
            raise ConfigError(f"{where}={options}: must be settings, such as {where}.lr=1e-4")
        settings, _ = complete({"_target_": own["_target_"], "_partial_": True, **options}, allow=allow, where=where)
        own_groups[name] = {key: settings[key] for key in options}  # also one at the signature's default, which the optimizer's may not be
    if own_groups:
        full[PARAMETER_GROUPS] = short[PARAMETER_GROUPS] = own_groups
    return full, short


def split(node: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """A completed optimizer node without its groups, and the groups."""
    return {key: value for key, value in node.items() if key != PARAMETER_GROUPS}, node.get(PARAMETER_GROUPS, {})
