"""Places: what one dry run sees of a network: every named module that ran, its shapes, and the order; and globs over their names."""

import re
from collections.abc import Callable, KeysView, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attnlab.placement.hooks import Shape


@dataclass
class Place:
    """What one dry run saw at a named module: its class, how often it was called, its input and output shapes (without batch) in the
    order of the calls, when it first started and last ended."""

    module: type[nn.Module] = nn.Module
    calls: int = 0
    shapes_in: dict[Shape | None, None] = field(default_factory=dict)
    shapes_out: dict[Shape | None, None] = field(default_factory=dict)
    start: int = -1
    end: int = -1

    @property
    def inputs(self) -> KeysView[Shape | None]:
        return self.shapes_in.keys()

    @property
    def outputs(self) -> KeysView[Shape | None]:
        return self.shapes_out.keys()


def places_of(model: nn.Module, shape: Shape) -> dict[str, Place]:
    """One dry forward of `model` in eval mode on zeros of (2, *shape): every named module that ran, its shapes, and the order."""
    places: dict[str, Place] = {}
    handles, clock = [], iter(range(10**9))

    def enter(place: Place) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            place.calls += 1
            place.shapes_in[shape_of(args[0]) if args else None] = None
            if place.start < 0:
                place.start = next(clock)

        return hook

    def leave(place: Place) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            place.shapes_out[shape_of(output)] = None
            place.end = next(clock)

        return hook

    for name, module in model.named_modules():
        if name:
            place = places[name] = Place(type(module))
            handles.append(module.register_forward_pre_hook(enter(place), with_kwargs=True))
            handles.append(module.register_forward_hook(leave(place)))
    try:
        dry_run(model, shape)
    finally:
        for handle in handles:
            handle.remove()
    return {name: place for name, place in places.items() if place.start >= 0}


def shapes_by_place(places: dict[str, Place]) -> dict[str, Shape]:
    """{name: shape of its output} in the order of the pass, of the places that give one tensor of one shape."""
    found = {name: next(iter(place.outputs)) for name, place in places.items() if len(place.outputs) == 1}
    return {name: found[name] for name in sorted(found, key=lambda name: places[name].end) if found[name] is not None}


def shape_of(value: Any) -> Shape | None:
    return tuple(value.shape[1:]) if isinstance(value, Tensor) else None


def dry_run(model: nn.Module, shape: Shape) -> None:
    modes = {module: module.training for module in model.modules()}
    like = next(model.parameters(), torch.empty(0))
    try:
        model.eval()
        with torch.no_grad():
            model(torch.zeros(2, *shape, device=like.device, dtype=like.dtype))
    finally:
        for module, mode in modes.items():
            module.training = mode


def matches(pattern: str, names: Sequence[str]) -> list[str]:
    """Names that a glob names: `*` and `?` stay inside one dotted part, `**` crosses parts, a leading `**.` also matches nothing."""
    expression = re.escape(pattern).replace(r"\*\*\.", "(?:.+\\.)?").replace(r"\*\*", ".*").replace(r"\*", "[^.]*").replace(r"\?", "[^.]")
    return [name for name in names if re.fullmatch(expression, name)]
