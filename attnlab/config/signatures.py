"""Signatures: a config node held against the parameters of its target: unknown keys, missing ones, wrong types, defaults."""

import functools
import inspect
import math
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
    *("student_shapes", "teacher_shapes", "make_peer", "first_weights"),
)


def parameters(target: Any) -> dict[str, inspect.Parameter]:
    """The parameters a config may set: the target's own, without those that the framework gives."""
    found = _signature(target).parameters
    return {name: parameter for name, parameter in found.items() if name not in GIVEN and name != "self"}


def accepts_any(target: Any) -> bool:
    """Whether a target takes keyword arguments of any name."""
    return any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in _signature(target).parameters.values())


def complete(node: Any, *, allow: Sequence[str] = (), where: str = "") -> tuple[Any, Any]:
    """Check a config tree against the signatures of its targets; return (full, short).

    full has every parameter that the config or the signature sets: what goes into the record. short leaves out values that equal the
    signature's default, so that a run keeps its address when a component gains a parameter. Raises ConfigError for an unknown key, a
    missing one or a value of the wrong type, naming key and remedy. A whole number given for a `float` becomes one (`coerced`).
    """

    if isinstance(node, Mapping) and "_target_" not in node:
        pairs = {key: complete(value, allow=allow, where=join(where, key)) for key, value in node.items()}
        return {key: full for key, (full, _) in pairs.items()}, {key: short for key, (_, short) in pairs.items()}
    if not isinstance(node, Mapping):
        return node, node

    target = locate(str(node["_target_"]), allow=allow, where=join(where, "_target_"))
    known = parameters(target)
    hints = _hints(target)
    full, short = {}, {}
    for key, value in node.items():
        if key in MARKS:
            if key == "_partial_" and value is not True:
                raise ConfigError(f"{join(where, key)}={value}: can only be true, or left out")
            full[key] = short[key] = value
            continue
        path = join(where, key)
        if key not in known and not accepts_any(target):
            raise ConfigError(f"unknown key {path}; {nearest(key, list(known), prefix=path.removesuffix(key))}")
        check_numbers(value, path)
        if key in hints and not conforms(value, hints[key]):
            raise ConfigError(f"{path}={value}: must be {describe(hints[key])}")
        value = coerced(value, hints.get(key, Any))
        if isinstance(value, Mapping):
            full[key], short[key] = complete(value, allow=allow, where=path)
            continue
        full[key] = value
        if key not in known or not _same(value, known[key].default):
            short[key] = value
    own = not str(node["_target_"]).startswith(tuple(LIBRARIES))
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
        return any(conforms(value, argument) for argument in arguments if not _is_object(argument) or _has_target(value))
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
    if origin in (dict, Mapping) or hint in (dict, Mapping):
        if not isinstance(value, Mapping) or "_target_" in value:
            return False
        return not arguments or all(conforms(key, arguments[0]) and conforms(item, arguments[1]) for key, item in value.items())
    return True


def _is_object(hint: Any) -> bool:
    """Whether an annotation is a class of which plain data hold nothing, such as the Tensor in torch's `lr: float | Tensor`."""
    return isinstance(hint, type) and not issubclass(hint, bool | int | float | str | Path | list | tuple | dict | type(None))


def _has_target(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def check_numbers(value: Any, path: str) -> None:
    """Refuse what no tensor can hold, at any depth of a plain value: NaN, infinity, and whole numbers of more than 64 bits."""
    if isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            check_numbers(item, path)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{path}={value}: must be finite")
    elif isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ConfigError(f"{path}: a whole number of {len(str(abs(value)))} digits; {2**63 - 1} is the largest there can be")


def coerced(value: Any, hint: Any) -> Any:
    """A value that conforms to a type annotation, with whole numbers made floats where a float is asked for, at any depth.

    So the record, the address and the object see one value, whether 1 or 1.0 was written. An `int | float` keeps what was written.
    A float is never made an int: 2.0 for an `int` is refused.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin in (typing.Union, types.UnionType):
        fitting = [argument for argument in arguments if conforms(value, argument)]
        if any(argument is int or typing.get_origin(argument) is Literal for argument in fitting):
            return value
        known = [argument for argument in fitting if argument is float or typing.get_origin(argument)]
        return coerced(value, known[0]) if len(known) == 1 else value
    if origin in (list, tuple, Sequence) and isinstance(value, list | tuple):
        items = [argument for argument in arguments if argument is not Ellipsis]
        each = items if origin is tuple and len(items) > 1 else items[:1] * len(value)
        return [coerced(item, argument) for item, argument in zip(value, each)] if len(each) == len(value) else value
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return {key: coerced(item, arguments[1]) for key, item in value.items()}
    return value


def describe(hint: Any) -> str:
    """A type annotation in a user's words."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        return "one of " + ", ".join(str(argument).lower() if isinstance(argument, bool) else str(argument) for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(argument) for argument in arguments if not _is_object(argument)) or "given"
    if origin in (dict, Mapping) or hint is dict:
        return "keys with values" + (f", each {describe(arguments[1])}" if arguments else "")
    if origin in (list, tuple, Sequence):
        return "a list, each " + " and ".join(describe(argument) for argument in arguments if argument is not Ellipsis)
    words = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "null", Any: "given"}
    return words.get(hint, getattr(hint, "__name__", str(hint)))


@functools.cache
def _signature(target: Any) -> inspect.Signature:
    return inspect.signature(target)


@functools.cache
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
