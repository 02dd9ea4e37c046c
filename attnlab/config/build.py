"""Build: turn a config node with a `_target_` into an object, with the config key in front of whatever its constructor refuses."""

import functools
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from attnlab.config.signatures import MARKS, join
from attnlab.config.targets import ConfigError, locate


def build(node: Any, *, allow: Sequence[str] = (), where: str = "", **given: Any) -> Any:
    """Build what `node` describes: a `_target_` is called (or kept as a partial), mappings and lists are built through.

    `given` are further keyword arguments of the outermost call. An error of the target's constructor is raised as ConfigError with the
    config key before it.
    """
    if isinstance(node, Mapping) and "_target_" in node:
        target = locate(str(node["_target_"]), allow=allow, where=join(where, "_target_"))
        arguments = {key: build(value, allow=allow, where=join(where, key)) for key, value in node.items() if key not in MARKS}
        if node.get("_partial_"):
            return functools.partial(target, **arguments, **given)
        return checked(functools.partial(target, **arguments, **given), where=where)()
    if isinstance(node, Mapping):
        return {key: build(value, allow=allow, where=join(where, key)) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [build(value, allow=allow, where=where) for value in node]
    return node


def checked(function: typing.Callable, *, where: str) -> typing.Callable:
    """`function`, whose ValueErrors and TypeErrors come back as ConfigError with the config key before them."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ConfigError:
            raise
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{where}: {error}") from error

    return call
