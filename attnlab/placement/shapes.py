"""Shapes that constructors are given: of one image's value at a place, without the batch."""

from typing import Any


def check_shape(shape: Any, letters: str, *, what: str, hint: str = "") -> None:
    """ValueError unless `shape` is a tuple of positive whole numbers, one for each of `letters` ("CHW": a map, "D": a vector)."""
    try:
        fits = len(shape) == len(letters) and all(isinstance(size, int) and size > 0 for size in shape)
    except TypeError:  # a number, None, a module
        fits = False
    if not fits:
        form = f"({', '.join(letters)}{',' * (len(letters) == 1)})"
        example = {"CHW": "(64, 32, 32)", "D": "(512,)"}.get(letters, form)
        raise ValueError(
            f"{what} needs a place of shape {form}, without the batch, such as {example}; got {shape}{'; ' * bool(hint)}{hint}"
        )
