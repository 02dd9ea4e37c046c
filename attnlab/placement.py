"""Placement: put a module AT named places of any network, in one of three ways, without touching the network's own names.

    placed = place(model, {"rect": {"at": "layer3", "module": partial(RectAttention, sharpness=5.0)}}, shape=(3, 32, 32))
    model.placed = placed              # registers the guests' parameters under the model; the model's own names stay as they were

A placement is a mapping with the keys
    at      a name of `model.named_modules()`, a glob, or a list of them; `*` stays inside one dotted part, `**` crosses parts
    module  called once per place as `module(shape)`, shape = (C, H, W) or (D,) of the value it is given, without the batch
    how     after (default): the place's output goes through the guest;  before: its input does;  replace: the guest stands in its stead
    reads   other places whose values the guest wants: `forward(x, *values)`; `target` is the labels of the batch, or None
    writes  `[target]`: the guest returns `(y, new_target)`; how mixup and cutmix hand on their soft labels
A `module` whose signature names `host` (the module it displaces), `read_shapes` (the shapes of `reads`, in order) or `num_classes` is
given them.

Guests hang on forward hooks that are small callable objects (closures would break deepcopy), so one `torch.compile(fullgraph=True)` takes
the network whole, pretrained weights load under their names, and deepcopy follows its own guests.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attnlab.guests import (
    TARGET,
    After,
    Before,
    Claim,
    Placed,
    ReadsOfReplacement,
    Recorder,
    Shape,
    WritesOfReplacement,
)
from attnlab.names import HOWS, KEYS, nearest


@dataclass
class Place:
    """What one dry run saw at a named module: its input and output shapes (without batch), and when it ran."""

    inputs: set[Shape | None] = field(default_factory=set)
    outputs: set[Shape | None] = field(default_factory=set)
    start: int = -1
    end: int = -1


def places_of(model: nn.Module, shape: Shape) -> dict[str, Place]:
    """One dry forward of `model` in eval mode on zeros of (2, *shape): every named module that ran, its shapes, and the order."""
    places: dict[str, Place] = {}
    handles, clock = [], iter(range(10**9))

    def enter(place: Place) -> Callable:
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            place.inputs.add(_shape(args[0]) if args else None)
            if place.start < 0:
                place.start = next(clock)

        return hook

    def leave(place: Place) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            place.outputs.add(_shape(output))
            place.end = next(clock)

        return hook

    for name, module in model.named_modules():
        if name:
            place = places[name] = Place()
            handles.append(module.register_forward_pre_hook(enter(place), with_kwargs=True))
            handles.append(module.register_forward_hook(leave(place)))
    try:
        _dry_run(model, shape)
    finally:
        for handle in handles:
            handle.remove()
    return {name: place for name, place in places.items() if place.start >= 0}


def _shape(value: Any) -> Shape | None:
    return tuple(value.shape[1:]) if isinstance(value, Tensor) else None


def _dry_run(model: nn.Module, shape: Shape) -> None:
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


def place(
    model: nn.Module, placements: Mapping[str, Mapping[str, Any]], *, shape: Shape, num_classes: int | None = None, where: str = "placement"
) -> Placed:
    """Put the guests of `placements` into `model` and return them.

    Guests are built and attached in the order of `placements`; several on one place run in that order, after any replacement. What a read
    place gives is its value after its own guests. `where` is only used in messages.

    Raises ValueError for: no place matched (with the nearest names), two replacements of one place or of nested ones, a place inside a
    replaced one, a place called with several shapes or without a tensor, reads of a place that runs later, a guest that changes the shape.
    """
    return _attach(model, placements, shape=shape, num_classes=num_classes, where=where)[0]


@contextmanager
def placed(
    model: nn.Module, placements: Mapping[str, Mapping[str, Any]], *, shape: Shape, num_classes: int | None = None
) -> Iterator[Placed]:
    """`with placed(network, {...}, shape=...) as guests:` puts guests in for a moment (explainers do) and takes them out again."""
    guests, undo = _attach(model, placements, shape=shape, num_classes=num_classes, where="placed")
    try:
        yield guests
    finally:
        for step in reversed(undo):
            step()


def claims_of(placements: Mapping[str, Mapping[str, Any]], places: Mapping[str, Place], *, where: str = "placement") -> list[Claim]:
    """Resolve every placement against the places of a dry run: all that can be refused before a module is built."""
    claims = [claim for name, spec in placements.items() for claim in _claims(f"{where}.{name}", name, spec, places)]
    replaced = [claim for claim in claims if claim.how == "replace"]
    for claim in claims:
        for other in replaced:
            inside = claim.place.startswith(other.place + ".")
            if claim is not other and (inside or (claim.how == "replace" and claim.place == other.place)):
                verb = "lies inside" if inside else "is also"
                taken = f"{other.place}, which {where}.{other.name} replaces"
                raise ValueError(f"{where}.{claim.name}.at: {claim.place} {verb} {taken}; give them places apart")
    return claims


def _claims(where: str, name: str, spec: Mapping[str, Any], places: Mapping[str, Place]) -> list[Claim]:
    for key in spec:
        if key not in KEYS:
            raise ValueError(f"{where}.{key}: unknown key; {nearest(key, KEYS)}")
    for key in ("at", "module"):
        if spec.get(key) is None:
            raise ValueError(f"{where}.{key}: missing; a placement needs `at` and `module`")
    how = spec.get("how", "after")
    if how not in HOWS:
        raise ValueError(f"{where}.how: {how!r} is none of {', '.join(HOWS)}")
    writes = tuple(_listed(spec.get("writes")))
    if writes not in ((), (TARGET,)):
        raise ValueError(f"{where}.writes: only [target] can be written, got {list(writes)}")

    names = list(places)
    wanted = {found for pattern in _listed(spec["at"]) for found in _found(f"{where}.at", pattern, names)}
    reads: list[str] = []
    for pattern in _listed(spec.get("reads")):
        reads += [TARGET] if pattern == TARGET else _found(f"{where}.reads", pattern, names)

    claims = []
    for at in (known for known in names if known in wanted):
        shapes = places[at].outputs if how == "after" else places[at].inputs
        if len(shapes) != 1 or None in shapes:
            said = "no tensor" if None in shapes else f"tensors of several shapes {sorted(shapes)}"
            raise ValueError(f"{where}.at: {at} handles {said} in one pass; choose a place with one shape")
        for read in reads:
            if read != TARGET and places[read].end >= (places[at].end if how == "after" else places[at].start):
                raise ValueError(f"{where}.reads: {read} runs after {at}, so its value is not there yet; read an earlier place")
            if read != TARGET and (len(places[read].outputs) != 1 or None in places[read].outputs):
                raise ValueError(f"{where}.reads: {read} does not give one tensor of one shape; choose another place")
        claims.append(Claim(name, at, how, next(iter(shapes)), tuple(reads), writes))
    return claims


def _listed(value: str | Sequence[str] | None) -> list[str]:
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def _found(where: str, pattern: str, names: Sequence[str]) -> list[str]:
    found = matches(pattern, names)
    if not found:
        raise ValueError(f"{where}: no place matches {pattern!r}; {nearest(pattern, names)}")
    return found


def _attach(
    model: nn.Module, placements: Mapping[str, Mapping[str, Any]], *, shape: Shape, num_classes: int | None, where: str
) -> tuple[Placed, list[Callable[[], Any]]]:
    places = places_of(model, shape)
    claims = claims_of(placements, places, where=where)
    result, undo = Placed(), []
    result.claims = claims
    hosts = {claim.place: model.get_submodule(claim.place) for claim in claims if claim.how == "replace"}
    built: list[tuple[Claim, nn.Module]] = []
    for claim in claims:
        offers = {
            "host": hosts.get(claim.place),
            "read_shapes": [next(iter(places[read].outputs)) for read in claim.reads if read != TARGET],
            "num_classes": num_classes,
        }
        built.append((claim, _build(f"{where}.{claim.name}.module", placements[claim.name]["module"], claim.shape, offers)))

    try:
        for claim, guest in built:  # replacements first: the other guests then hang on what really stands there
            if claim.how == "replace":
                model.set_submodule(claim.place, guest.train(model.training), strict=True)
                undo.append(_Restore(model, claim.place, hosts[claim.place]))
                result._standing.append((claim.key, guest))
                if claim.reads:
                    undo.append(guest.register_forward_pre_hook(ReadsOfReplacement(guest, result.tape, claim)).remove)
                if claim.writes:
                    undo.append(guest.register_forward_hook(WritesOfReplacement(guest, result.tape, claim)).remove)
        for claim, guest in built:
            host = model.get_submodule(claim.place)
            if claim.how == "after":
                undo.append(host.register_forward_hook(After(guest, result.tape, claim)).remove)
            elif claim.how == "before":
                undo.append(host.register_forward_pre_hook(Before(guest, result.tape, claim)).remove)
            if claim.how != "replace":
                result[claim.key] = guest.train(model.training)
        for claim in claims:  # last, so that a read place is read after its own guests
            for read in claim.reads:
                if read != TARGET:
                    recorder = Recorder(result.tape, f"{claim.key}<{read}")
                    undo.append(model.get_submodule(read).register_forward_hook(recorder).remove)
        _verify(model, built, shape, where)
        result.tape.values.clear()  # of the dry run: a compiled step would be compiled anew once they are gone
    except BaseException:
        for step in reversed(undo):
            step()
        raise
    return result, undo


@dataclass
class _Restore:
    model: nn.Module
    place: str
    host: nn.Module

    def __call__(self) -> None:
        self.model.set_submodule(self.place, self.host, strict=True)


def _build(where: str, module: Callable[..., nn.Module], shape: Shape, offers: Mapping[str, Any]) -> nn.Module:
    asked = inspect.signature(module).parameters
    try:
        guest = module(shape, **{name: offer for name, offer in offers.items() if name in asked})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error} (at a value of shape {shape})") from error
    if not isinstance(guest, nn.Module):
        raise ValueError(f"{where}: must build a torch.nn.Module, got {type(guest).__name__}")
    return guest


def _verify(model: nn.Module, built: list[tuple[Claim, nn.Module]], shape: Shape, where: str) -> None:
    """A second dry run, now with the guests: none may change a shape on its way through."""
    if not built:
        return
    handles, seen = [], {}

    def watch(claim: Claim) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            seen[claim.key] = _shape(output[0] if claim.writes else output)

        return hook

    for claim, guest in built:
        if claim.how != "replace":
            handles.append(guest.register_forward_hook(watch(claim)))
    try:
        like = next(model.parameters(), torch.empty(0))
        for _, guest in built:
            guest.to(device=like.device, dtype=like.dtype)
            guest.eval()
        _dry_run(model, shape)
    except (RuntimeError, TypeError, IndexError) as error:
        names = ", ".join(dict.fromkeys(f"{where}.{claim.name}" for claim, _ in built))
        raise ValueError(f"{names}: a pass through the placed network fails: {str(error).splitlines()[0]}") from error
    finally:
        for handle in handles:
            handle.remove()
        for _, guest in built:
            guest.train(model.training)
    for claim, _ in built:
        if claim.how != "replace" and seen[claim.key] != claim.shape:
            raise ValueError(f"{where}.{claim.name}: gives {seen[claim.key]} at {claim.place}, must keep {claim.shape}")
