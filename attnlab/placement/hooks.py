"""Hooks: what placement attaches to a network: the placed modules, the activation store between them, and forward hooks that deepcopy."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from attnlab.config.asking import asked

TARGET = "target"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Placement:
    """One placed module at one place: what the log and the record say about it."""

    name: str
    place: str
    how: str
    shape: Shape
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.name}@{self.place.replace('.', '/')}"


class ActivationStore:
    """Values on their way from the places that are read to the placed modules that read them. Empty between two forward passes."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}


class Placed(nn.ModuleDict):
    """The placed modules by key (`rect@layer3`, dots of the place written /), their placements, and the activation store they share.

    Placed modules that replace live in the network under the displaced name; `components()` yields both kinds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.placements: list[Placement] = []
        self.store = ActivationStore()
        self.asks: set[str] = set()  # what of the step its modules ask for by name
        self._standing: list[tuple[str, nn.Module]] = []  # a list hides them from state_dict: they are in the network already

    def components(self) -> Iterator[tuple[str, nn.Module]]:
        yield from self.items()
        yield from self._standing


class _Hook:
    """A forward hook that sends a value through a placed module."""

    def __init__(self, component: nn.Module, store: ActivationStore, placement: Placement) -> None:
        self.component = component
        self.store = store
        self.keys = [TARGET if read == TARGET else f"{placement.key}<{read}" for read in placement.reads]
        self.writes = placement.writes
        self.names = asked(component, skip=1 + len(placement.reads))

    def asked(self) -> dict[str, Any]:
        """What of the step the module asks for by name: `target`, `progress`; None where it is not known, as in evaluation."""
        return {name: self.store.values.get(name) for name in self.names}

    def reads(self) -> list[Any]:
        return [self.store.values.get(key) if key == TARGET else self.store.values.pop(key) for key in self.keys]

    def wrote(self, result: Any) -> Any:
        if not self.writes:
            return result
        value, self.store.values[TARGET] = result
        return value

    def __deepcopy__(self, memo: dict) -> "_Hook":
        detach_graphs(self.component, memo)
        copied = memo[id(self)] = object.__new__(type(self))
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied


class After(_Hook):
    def __call__(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return self.wrote(self.component(output, *self.reads(), **self.asked()))


class Before(_Hook):
    def __call__(self, module: nn.Module, args: tuple) -> tuple:
        return (self.wrote(self.component(args[0], *self.reads(), **self.asked())), *args[1:])


class ReadsOfReplacement(_Hook):
    """The network calls a replacement with x alone: this pre-hook adds what it reads."""

    def __call__(self, module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
        return (*args, *self.reads()), {**kwargs, **self.asked()}


class WritesOfReplacement(_Hook):
    def __call__(self, module: nn.Module, args: tuple, output: Any) -> Any:
        return self.wrote(output)


class Recorder:
    """A forward hook that puts a place's value on the activation store under a key."""

    def __init__(self, store: ActivationStore, key: str) -> None:
        self.store = store
        self.key = key

    def __call__(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self.store.values[self.key] = output


def detach_graphs(root: nn.Module, memo: dict) -> None:
    """Let deepcopy take `.map` and `.penalty` of the last pass without their graph, which it refuses to copy."""
    for module in root.modules():
        for value in vars(module).values():
            for tensor in value if isinstance(value, list | tuple) else [value]:
                if isinstance(tensor, Tensor) and tensor.grad_fn is not None:
                    memo[id(tensor)] = tensor.detach().clone()
