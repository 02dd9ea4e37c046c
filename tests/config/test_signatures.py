"""Values against annotations: what fits, and that a whole number given for a float reaches everybody as one."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from attnlab.config.compose import compose
from attnlab.config.signatures import coerced, conforms

COERCED = [
    (1, float, 1.0),
    (1, float | None, 1.0),
    (1, torch.Tensor | float, 1.0),
    (1, float | list[float], 1.0),
    ([1, 2.5], float | list[float], [1.0, 2.5]),
    ([1, 2], list[float], [1.0, 2.0]),
    ([1, 2], tuple[float, ...], [1.0, 2.0]),
    ([1, 2], tuple[float, int], [1.0, 2]),
    ([[1, 2], [3]], list[list[float]], [[1.0, 2.0], [3.0]]),
    ([1, 2], Sequence[float] | None, [1.0, 2.0]),
    ({"a": 1}, dict[str, float], {"a": 1.0}),
    ({"a": [1]}, Mapping[str, list[float]], {"a": [1.0]}),
    (1, int, 1),
    (1, int | float, 1),
    (1, float | Literal[1, "auto"], 1),
    (1, Any, 1),
    (True, float | bool, True),
    (None, float | None, None),
    ("1", float | str, "1"),
    ([1, 2], list, [1, 2]),
    ([1], list[int] | list[float], [1]),
]


@pytest.mark.parametrize(("value", "hint", "wanted"), COERCED, ids=str)
def test_coercion(value: Any, hint: Any, wanted: Any) -> None:
    found = coerced(value, hint)
    assert repr(found) == repr(wanted)  # 1 == 1.0 would not tell


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # on a busy machine
@given(
    st.recursive(
        st.integers(-9, 9) | st.floats(allow_nan=False) | st.none() | st.booleans() | st.text(max_size=2),
        lambda inner: st.lists(inner, max_size=3),
    )
)
def test_coercion_changes_no_value_and_is_done_once(value: Any) -> None:
    for hint in (float, float | None, list[float] | float, list[list[float]] | str, dict[str, float], tuple[float, float], Any):
        if conforms(value, hint):
            found = coerced(value, hint)
            assert found == value and repr(coerced(found, hint)) == repr(found) and conforms(found, hint)


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (2.0, int),
        (True, int),
        (True, float),
        ("1", float),
        ({"a": 1}, int),
        ({"a": 1}, Literal["a"]),
        ({"a": "b"}, dict[str, float]),
        ([1], str),
        (3, Path),
        ({"_target_": "torch.nn.ReLU"}, float),
        ([1, 2, 3], tuple[float, float]),
    ],
)
def test_what_does_not_fit(value: Any, hint: Any) -> None:
    assert not conforms(value, hint)


def test_the_object_the_record_and_the_address_see_one_value() -> None:
    from attnlab.config.build import build

    one, two = (
        compose(["model.width=4", "attention=rect", f"attention.rect.sharpness={text}", f"optimizer.lr={text}"]) for text in ("1", "1.0")
    )
    assert repr(one.full) == repr(two.full)  # 1 == 1.0 would not tell
    assert one.address == two.address and isinstance(one.full["attention"]["rect"]["module"]["sharpness"], float)
    assert isinstance(one.full["optimizer"]["lr"], float)
    part = build(one.full["attention"])["rect"]["module"]
    assert isinstance(part.keywords["sharpness"], float) and math.isclose(part.keywords["sharpness"], 1)
