"""The optimizer node, whose `groups` give components or parameters settings of their own (see `attnlab.training.param_groups`)."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from attnlab.config.signatures import complete
from attnlab.config.targets import ConfigError

if TYPE_CHECKING:
    pass

KEY = "groups"


def complete_optimizer(node: Mapping[str, Any], *, allow: Sequence[str] = ()) -> tuple[dict[str, Any], dict[str, Any]]:
    """`attnlab.config.signatures.complete` of an optimizer whose `groups`, if any, are held against the same signature."""
    groups = node.get(KEY) or {}
    own = {key: value for key, value in node.items() if key != KEY}
    full, short = complete(own, allow=allow, where="optimizer")
    if not isinstance(groups, Mapping):
        raise ConfigError(f"optimizer.{KEY}={groups}: must be names with settings, such as optimizer.{KEY}.NAME.lr=1e-4")
    for name, options in groups.items():
        where = f"optimizer.{KEY}.{name}"
        if not isinstance(options, Mapping) or not options:
            raise ConfigError(f"{where}={options}: must be settings, such as {where}.lr=1e-4")
        complete({"_target_": own["_target_"], "_partial_": True, **options}, allow=allow, where=where)
    if groups:  # as they stand: a setting equal to the signature's default still differs from the optimizer's own
        full[KEY] = short[KEY] = {name: dict(options) for name, options in groups.items()}
    return full, short


def split(node: Mapping[str, Any]) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """A completed optimizer node without its groups, and the groups."""
    return {key: value for key, value in node.items() if key != KEY}, node.get(KEY, {})
