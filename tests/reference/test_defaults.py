"""Defaults are the papers': a slip of the hand in one would change every run that does not name it, and no formula would notice.

defaults.toml holds them: module, class or function, argument = value; and what a class says of itself (soft_targets, needs_fc, signed).
What it does not hold is not pinned; who changes a default on purpose changes it there too.
"""

import importlib
import inspect
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

DEFAULTS = tomllib.loads(Path(__file__).with_name("defaults.toml").read_text())


@pytest.mark.parametrize("module", DEFAULTS)
def test_defaults(module: str) -> None:
    room = importlib.import_module(module)
    stated = {name: {key: _stated(getattr(room, name), key) for key in expected} for name, expected in DEFAULTS[module].items()}
    assert stated == DEFAULTS[module]
    assert all(type(stated[name][key]) is type(value) for name, expected in DEFAULTS[module].items() for key, value in expected.items())


def _stated(thing: Callable, key: str) -> object:
    """The default of an argument, or the attribute of a class."""
    parameters = inspect.signature(thing).parameters
    return _plain(parameters[key].default if key in parameters else getattr(thing, key))


def _plain(value: object) -> object:
    return [_plain(one) for one in value] if isinstance(value, (tuple, list)) else value
