"""The callbacks of a run, in their order (see `attnlab.callbacks`)."""

from collections.abc import Iterator, Mapping
from typing import Any

from torch import nn


class CallbackList:
    """Callbacks by name, sorted by `order`; equal ones stay in the order they were given."""

    def __init__(self, callbacks: Mapping[str, Any]) -> None:
        self.by_name: dict[str, Any] = {}
        self.add(callbacks)

    def add(self, callbacks: Mapping[str, Any]) -> None:
        both = {**self.by_name, **callbacks}
        self.by_name = dict(sorted(both.items(), key=lambda item: getattr(item[1], "order", 0)))
        self.in_step = [(one, one.every) for one in self if hasattr(one, "on_step") and one.every]
        self.with_gradients = [one for one in self if hasattr(one, "on_gradients")]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.by_name.values())

    def call(self, event: str, *given: Any) -> None:
        """`event(*given)` of every callback that has it."""
        for callback in self:
            if method := getattr(callback, event, None):
                method(*given)

    def measured(self) -> dict[str, Any]:
        """By key of the configuration: what callbacks measured on this machine and trained by."""
        stated = {name: one.measured() for name, one in self.by_name.items() if hasattr(one, "measured")}
        return {f"callback.{name}.{key}": value for name, values in stated.items() for key, value in values.items()}

    def tested(self, network: nn.Module, *, now: bool) -> nn.Module:
        """The network as the callbacks have it tested; `now`: without those that choose among epochs."""
        for callback in self:
            if hasattr(callback, "tested") and not (now and getattr(callback, "reads_row", False)):
                network = callback.tested(network)
        return network
