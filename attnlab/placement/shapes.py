"""Shapes that constructors are given: of one image's value at a place, without the batch."""

from typing import Any

ANY = "C..."


def check_shape(shape: Any, letters: str, *, what: str, hint: str = "") -> None:
    """ValueError unless `shape` is a tuple of positive whole numbers, one for each of `letters` ("CHW": a map, "D": a vector); or, for
    ANY, one or more."""
    try:
        right = len(shape) >= 1 if letters == ANY else len(shape) == len(letters)
        fits = right and all(isinstance(size, int) and size > 0 for size in shape)
    except TypeError:  # a number, None, a module
        fits = False
    if not fits:
        form = "(C,) or (C, H, W)" if letters == ANY else f"({', '.join(letters)}{',' * (len(letters) == 1)})"
        example = "(512,)" if letters == "D" else "(64, 32, 32)"
        raise ValueError(
            f"{what} needs a place of shape {form}, without the batch, such as {example}; got {shape}{'; ' * bool(hint)}{hint}"
        )
