"""Asking by name: what a class, a function, a module's call and a partial ask for, and what they are given."""

from functools import partial

from torch import nn

from attnlab.config.asking import asked, given


class Place:
    def __init__(self, shape, *, num_classes: int, mean: list | None = None, drop: float = 0.5) -> None:
        self.drop = drop


class Reading(nn.Module):
    def forward(self, x, *values, target=None, progress=None):
        return x


def loss(out, y, teacher, index, other=1):
    return out


def test_what_is_asked_for() -> None:
    assert asked(Place) == ("shape", "num_classes", "mean") and asked(Place, skip=1) == ("num_classes", "mean")
    assert asked(loss, skip=2) == ("teacher", "index")
    assert asked(Reading(), skip=1) == asked(Reading(), skip=3) == ("target", "progress")  # however many values come between


def test_a_partial_asks_for_what_it_has_not_set() -> None:
    """A yaml may show a key as null: that is not set."""
    assert asked(partial(Place, mean=None, num_classes=3), skip=1) == ("mean",)
    assert given(partial(Place, mean=[0.5]), {"mean": [0.1], "num_classes": 10, "std": [1.0]}, skip=1) == {"num_classes": 10}
