"""Attach: build the modules of a placement, hang them on forward hooks, and take them out again."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from attnlab.config.asking import asked, given, takes_shape
from attnlab.placement.hooks import TARGET, After, Before, Placed, Placement, ReadsOfReplacement, Recorder, Shape, WritesOfReplacement
from attnlab.placement.places import dry_run, places_of, shape_of
from attnlab.placement.spec import Where, resolve, spelt


def place(
    model: nn.Module,
    placements: Mapping[str, Mapping[str, Any]],
    *,
    shape: Shape,
    num_classes: int | None = None,
    offers: Mapping[str, Any] | None = None,
    where: Where = "placement",
) -> Placed:
    """Put the placed modules of `placements` into `model` and return them.

    They are built and attached in the order of `placements`; several on one place run in that order, after any replacement. What a read
    place gives is its value after its own placed modules. `offers`: what else a constructor may ask for by name (`attnlab.config.asking`);
    `where` is only used in messages: what stands before the names of placements, or what each is called, by name.

    Raises ValueError for: no place matched (with the nearest names), two replacements of one place or of nested ones, a place inside a
    replaced one, a place without a tensor, one called several times by a component that is not `shareable`, reads of a place that runs
    later, a module that changes the shape.
    """
    return _attach(model, placements, shape=shape, offers={**(offers or {}), "num_classes": num_classes}, where=where)[0]


@contextmanager
def placed(
    model: nn.Module, placements: Mapping[str, Mapping[str, Any]], *, shape: Shape, num_classes: int | None = None
) -> Iterator[Placed]:
    """`with placed(network, {...}, shape=...) as components:` puts modules in for a moment (explainers do) and takes them out again."""
    components, undo = _attach(model, placements, shape=shape, offers={"num_classes": num_classes}, where="placed")
    try:
        yield components
    finally:
        for step in reversed(undo):
            step()


def _attach(
    model: nn.Module, placements: Mapping[str, Mapping[str, Any]], *, shape: Shape, offers: Mapping[str, Any], where: Where
) -> tuple[Placed, list[Callable[[], Any]]]:
    places = places_of(model, shape)
    resolved = resolve(placements, places, where=where)
    result, undo = Placed(), []
    result.placements = resolved
    hosts = {placement.place: model.get_submodule(placement.place) for placement in resolved if placement.how == "replace"}
    built: list[tuple[Placement, nn.Module]] = []
    for placement in resolved:
        here = {
            **offers,
            "host": hosts.get(placement.place),
            "read_shapes": [next(iter(places[read].outputs)) for read in placement.reads if read != TARGET],
        }
        built.append((placement, _build(spelt(where, placement.name), placements[placement.name]["module"], placement.shape, here)))

    for placement, component in built:
        result.asks |= set(asked(component, skip=1 + len(placement.reads)))
    try:
        for placement, component in built:  # replacements first: the other placed modules then hang on what really stands there
            if placement.how == "replace":
                host = hosts[placement.place]
                for name in [name for name, module in model.named_modules(remove_duplicate=False) if module is host]:
                    model.set_submodule(name, component.train(model.training), strict=True)  # a module may have several names
                    undo.append(_Restore(model, name, host))
                result._standing.append((placement.key, component))
                reading = ReadsOfReplacement(component, result.store, placement)
                if reading.keys or reading.names:
                    undo.append(component.register_forward_pre_hook(reading, with_kwargs=True).remove)
                if placement.writes:
                    undo.append(component.register_forward_hook(WritesOfReplacement(component, result.store, placement)).remove)
        for placement, component in built:
            host = model.get_submodule(placement.place)
            if placement.how == "after":
                undo.append(host.register_forward_hook(After(component, result.store, placement)).remove)
            elif placement.how == "before":
                undo.append(host.register_forward_pre_hook(Before(component, result.store, placement)).remove)
            if placement.how != "replace":
                result[placement.key] = component.train(model.training)
        for placement in resolved:  # last, so that a read place is read after its own placed modules
            for read in placement.reads:
                if read != TARGET:
                    recorder = Recorder(result.store, f"{placement.key}<{read}")
                    undo.append(model.get_submodule(read).register_forward_hook(recorder).remove)
        _verify(model, built, shape, where)
        result.store.values.clear()  # of the dry run: a compiled step would be compiled again once they are gone
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
    try:
        component = module(shape, **given(module, offers, skip=1)) if takes_shape(module) else module(**given(module, offers))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error} (at a value of shape {shape})") from error
    if not isinstance(component, nn.Module):
        raise ValueError(f"{where}: must build a torch.nn.Module, got {type(component).__name__}")
    return component


def _verify(model: nn.Module, built: list[tuple[Placement, nn.Module]], shape: Shape, where: str) -> None:
    """A second dry run, now with the placed modules: none may change a shape on its way through."""
    if not built:
        return
    handles, changed = [], {}

    def watch(placement: Placement) -> Callable:
        def hook(module: nn.Module, args: tuple, output: Any) -> None:
            was, now = shape_of(args[0]), shape_of(output[0] if placement.writes else output)
            if now != was:
                changed[placement.key] = f"gives {now} at {placement.place}, must keep {was}"

        return hook

    for placement, component in built:
        if placement.how != "replace":
            handles.append(component.register_forward_hook(watch(placement)))
    try:
        like = next(model.parameters(), torch.empty(0))
        for _, component in built:
            component.to(device=like.device, dtype=like.dtype)
            component.eval()
        dry_run(model, shape)
    except (RuntimeError, TypeError, IndexError) as error:
        names = ", ".join(dict.fromkeys(spelt(where, placement.name) for placement, _ in built))
        raise ValueError(f"{names}: a pass through the placed network fails: {str(error).splitlines()[0]}") from error
    finally:
        for handle in handles:
            handle.remove()
        for _, component in built:
            component.train(model.training)
    for placement, _ in built:
        if placement.key in changed:
            raise ValueError(f"{spelt(where, placement.name)}: {changed[placement.key]}")
