"""Ask by name: a component names what it wants, in its constructor or in its call, and is given that and nothing else.

A constructor may name what is known when a run is built (CONSTRUCTION); a call what is known in a training step (CALL).
Imports nothing heavy.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

# shape: of the value at the place, or of the images; dim: of the features; host: the module that is replaced; read_shapes: of the values
# read; mean, std: of the images' channels; total_steps, steps_per_epoch: optimisation steps; student_shapes, teacher_shapes: {place: shape}
# of what the places of the network and of its teacher give; make_peer: makes another network of the plan (distillation terms, algorithm);
# first_weights: False where a checkpoint's weights are to come, so that those to start from need not be found (model);
# train_labels: train_labels() gives the labels of the training images in their order, -1 where training does not know one (distillation
# terms, algorithm); train_images: train_images(device) gives the images once, in that order, unaugmented, as batches (x, y); train_size:
# how many there are (algorithm)
CONSTRUCTION = (
    *("shape", "num_classes", "dim", "host", "read_shapes", "mean", "std", "total_steps", "steps_per_epoch"),
    *("student_shapes", "teacher_shapes", "make_peer", "first_weights", "train_labels", "train_images", "train_size"),
)
# x: the batch; out: the network's Output; target: labels; network; progress: 0-d tensor in [0, 1]; teacher: the teacher's Output; index:
# positions of the images in the training split
CALL = ("x", "out", "target", "network", "progress", "teacher", "index")
OFFERS = frozenset((*CONSTRUCTION, *CALL))
BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def asked(function: Callable, *, skip: int = 0) -> tuple[str, ...]:
    """What a class, a function or a module's `forward` asks for: parameters called like an offer that a partial has not set.

    skip: so many leading parameters are given by position. A partial's None counts as not set: a yaml may show the key.
    """
    plain = function if inspect.isclass(function) or isinstance(function, functools.partial) else getattr(function, "forward", function)
    parameters = list(inspect.signature(plain).parameters.values())
    named = [one for one in parameters if one.kind == one.KEYWORD_ONLY]
    names = [one.name for one in [*[one for one in parameters if one.kind in BY_POSITION][skip:], *named]]
    settled = plain.keywords if isinstance(plain, functools.partial) else {}
    return tuple(name for name in names if name in OFFERS and settled.get(name) is None)


def takes_shape(function: Callable) -> bool:
    """Whether a placed module's class wants the shape as its first argument: it is called so, or it is one that must be given."""
    parameters = list(inspect.signature(function).parameters.values())
    first = next((one for one in parameters if one.kind in BY_POSITION), None)
    return any(one.name == "shape" for one in parameters) or (first is not None and first.default is inspect.Parameter.empty)


def given(function: Callable, offers: Mapping[str, Any], *, skip: int = 0) -> dict[str, Any]:
    """Those of `offers` that `function` asks for, as keyword arguments."""
    return {name: offers[name] for name in asked(function, skip=skip) if name in offers}
