"""Signatures: a config node held against the parameters of its target: unknown keys, missing ones, wrong types, defaults."""

import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from attnlab.config.suggest import nearest
from attnlab.config.targets import LIBRARIES, ConfigError, locate

MARKS = ("_target_", "_partial_")

# what the framework hands to a component when it calls it: never a config's to give
GIVEN = (
    *("shape", "num_classes", "dim", "params", "host", "read_shapes", "network", "total_steps", "steps_per_epoch"),
    *("student_shapes", "teacher_shapes", "make_peer"),
)


def parameters(target: Any) -> dict[str, inspect.Parameter]:
    """The parameters a config may set: the target's own, without those that the framework gives."""
    found = inspect.signature(target).parameters
    return {name: parameter for name, parameter in found.items() if name not in GIVEN and name != "self"}


def complete(node: Any, *, allow: Sequence[str] = (), where: str = "") -> tuple[Any, Any]:
    """Check a config tree against the signatures of its targets; return (full, short).

    full has every parameter that the config or the signature sets: what goes into the record. short leaves out values that equal the
    signature's default, so that a run keeps its address when a component gains a parameter. Raises ConfigError for an unknown key, a
    missing one or a value of the wrong type, naming key and remedy.
    """

    if isinstance(node, Mapping) and "_target_" not in node:
        pairs = {key: complete(value, allow=allow, where=join(where, key)) for key, value in node.items()}
        return {key: full for key, (full, _) in pairs.items()}, {key: short for key, (_, short) in pairs.items()}
    if not isinstance(node, Mapping):
        return node, node

    target = locate(str(node["_target_"]), allow=allow, where=join(where, "_target_"))
    known = parameters(target)
    hints = _hints(target)
    swallows = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values())
    full, short = {}, {}
    for key, value in node.items():
        if key in MARKS:
            full[key] = short[key] = value
            continue
        path = join(where, key)
        if key not in known and not swallows:
            raise ConfigError(f"unknown key {path}; {nearest(key, list(known), prefix=path.removesuffix(key))}")
        if isinstance(value, Mapping):
            full[key], short[key] = complete(value, allow=allow, where=path)
            continue
        if key in hints and not conforms(value, hints[key]):
            raise ConfigError(f"{path}={value}: must be {describe(hints[key])}")
        full[key] = value
        if key not in known or not _same(value, known[key].default):
            short[key] = value
    own = not str(node["_target_"]).startswith(LIBRARIES)
    for name, parameter in known.items():
        if name in full or parameter.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
            continue
        if parameter.default is inspect.Parameter.empty:
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
                path = join(where, name)
                raise ConfigError(f"{path}: required, and must be {describe(hints.get(name, Any))}; add {path}=...")
        elif own and _plain(parameter.default):
            full[name] = list(parameter.default) if isinstance(parameter.default, tuple) else parameter.default
    return full, short


def conforms(value: Any, hint: Any) -> bool:
    """Whether a plain config value fits a type annotation; annotations of other kinds fit everything."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    if origin in (typing.Union, types.UnionType):
        return any(conforms(value, argument) for argument in arguments)
    if origin is Literal:
        return any(value == argument and isinstance(value, bool) == isinstance(argument, bool) for argument in arguments)
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint in (str, Path):
        return isinstance(value, str)
    if origin in (list, tuple, Sequence) or hint in (list, tuple):
        if not isinstance(value, list | tuple):
            return False
        items = [argument for argument in arguments if argument is not Ellipsis]
        if origin is tuple and len(items) > 1 and Ellipsis not in arguments:
            return len(value) == len(items) and all(map(conforms, value, items))
        return all(conforms(item, items[0]) for item in value) if items else True
    if origin in (dict, Mapping) or hint is dict:
        return isinstance(value, Mapping)
    return True


def describe(hint: Any) -> str:
    """A type annotation in a user's words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(str(argument).lower() if isinstance(argument, bool) else str(argument) for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(argument) for argument in arguments)
    if origin in (list, tuple, Sequence):
        return "a list, each " + " and ".join(describe(argument) for argument in arguments if argument is not Ellipsis)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null", Any: "given"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))


def _hints(target: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(target.__init__ if inspect.isclass(target) else target)
    except (NameError, TypeError, AttributeError):  # annotations that only a type checker can read: nothing is known then
        return {}


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _same(value: Any, default: Any) -> bool:
    if isinstance(value, list | tuple) and isinstance(default, list | tuple):
        return list(value) == list(default)
    return isinstance(value, bool) == isinstance(default, bool) and value == default


def join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else str(key)
