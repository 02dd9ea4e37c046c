"""Guests: what placement attaches to a network: claims, the tape that values travel on, and the forward hooks, all of which deepcopy."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

TARGET = "target"

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Claim:
    """One guest at one place: what the log and the record say about it."""

    name: str
    place: str
    how: str
    shape: Shape
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.name}@{self.place.replace('.', '/')}"


class Tape:
    """Values on their way from the places that are read to the guests that read them. Empty between two forward passes."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}


class Placed(nn.ModuleDict):
    """The guests by key (`rect@layer3`, dots of the place written /), the claims they made, and the tape they share.

    Guests that replace live in the network under the displaced name; `guests()` yields both kinds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.claims: list[Claim] = []
        self.tape = Tape()
        self._standing: list[tuple[str, nn.Module]] = []  # a list hides them from state_dict: they are in the network already

    def guests(self) -> Iterator[tuple[str, nn.Module]]:
        yield from self.items()
        yield from self._standing


class _Guest:
    """A forward hook that sends a value through a guest."""

    def __init__(self, guest: nn.Module, tape: Tape, claim: Claim) -> None:
        self.guest = guest
        self.tape = tape
        self.keys = [TARGET if read == TARGET else f"{claim.key}<{read}" for read in claim.reads]
        self.writes = claim.writes

    def reads(self) -> list[Any]:
        return [self.tape.values.get(key) if key == TARGET else self.tape.values.pop(key) for key in self.keys]

    def wrote(self, result: Any) -> Any:
        if not self.writes:
            return result
        value, self.tape.values[TARGET] = result
        return value

    def __deepcopy__(self, memo: dict) -> "_Guest":
        spare_graphs(self.guest, memo)
        copied = memo[id(self)] = object.__new__(type(self))
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied


class After(_Guest):
    def __call__(self, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return self.wrote(self.guest(output, *self.reads()))


class Before(_Guest):
    def __call__(self, module: nn.Module, args: tuple) -> tuple:
        return (self.wrote(self.guest(args[0], *self.reads())), *args[1:])


class ReadsOfReplacement(_Guest):
    """The network calls a replacement with x alone: this pre-hook adds what it reads."""

    def __call__(self, module: nn.Module, args: tuple) -> tuple:
        return (*args, *self.reads())


class WritesOfReplacement(_Guest):
    def __call__(self, module: nn.Module, args: tuple, output: Any) -> Any:
        return self.wrote(output)


class Recorder:
    """A forward hook that puts a place's value on the tape under a key."""

    def __init__(self, tape: Tape, key: str) -> None:
        self.tape = tape
        self.key = key

    def __call__(self, module: nn.Module, args: tuple, output: Tensor) -> None:
        self.tape.values[self.key] = output


def spare_graphs(root: nn.Module, memo: dict) -> None:
    """Let deepcopy take `.map` and `.penalty` of the last pass without their graph, which it refuses to copy."""
    for module in root.modules():
        for value in vars(module).values():
            for tensor in value if isinstance(value, list | tuple) else [value]:
                if isinstance(tensor, Tensor) and tensor.grad_fn is not None:
                    memo[id(tensor)] = tensor.detach().clone()
