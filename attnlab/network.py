"""Network: a backbone, the placed modules placed in it, and one forward that gives everything a loss or an OOD head may ask for.

Legend: B batch, C channels, H height, W width, D features, K classes.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from attnlab.config.suggest import nearest
from attnlab.placement.attach import place
from attnlab.placement.hooks import TARGET, Recorder, detach_graphs
from attnlab.placement.places import matches

FEATURES = "features"


class Output(NamedTuple):
    """What one forward pass gives.

    logits (B, K); features (B, D), what the final layer was given, or None where the backbone names no `features`: of a module in the place
    of `fc` that names `features` itself, those; fc, the module at `fc` (a Linear unless something replaced it), or None; target, the labels
    after modules that rewrite them (mixup, cutmix), or None; copies, where a module at `input` has appended n copies of the images to the
    batch (noisy_copies), the logits and features of those n B rows, else None; values, by name, of the places that are kept (see
    `Network.keep`); members, the outputs of an ensemble's members, or None.
    """

    logits: Tensor
    features: Tensor | None
    fc: nn.Module | None
    target: Tensor | None = None
    copies: "Output | None" = None
    values: Mapping[str, Tensor] = {}
    members: "tuple[Output, ...] | None" = None


def _kept(name: str) -> str:
    """Under which key the activation store has a kept place."""
    return f"{name} (kept)"


class Network(nn.Module):
    """`backbone` with the placed modules of `placements` (see `attnlab.placement`): `network(x_BCHW, target_B=None) -> Output`.

    `network.backbone` keeps its parameter names; placed modules are in `network.placed["rect@layer3"]`.
    """

    def __init__(
        self,
        backbone: nn.Module,
        placements: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        shape: tuple[int, ...],
        num_classes: int | None = None,
        offers: Mapping[str, Any] | None = None,
        where: str | Mapping[str, str] = "placement",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.placed = place(backbone, placements or {}, shape=shape, num_classes=num_classes, offers=offers, where=where)
        self.kept: tuple[str, ...] = ()
        names = dict(backbone.named_modules())
        named = names.get(f"fc.{FEATURES}", names.get(FEATURES))
        if named is not None:
            named.register_forward_hook(Recorder(self.placed.store, FEATURES))

    @property
    def fc(self) -> nn.Module | None:
        return getattr(self.backbone, "fc", None)

    def keep(self, patterns: Sequence[str], *, where: str = "places") -> tuple[str, ...]:
        """From now on `Output.values` has what these places give, after what is placed there; returns their names, in their own order.

        Names or globs over the backbone's modules. ValueError, with the nearest names, for a pattern that matches none.
        """
        names = [name for name, _ in self.backbone.named_modules() if name]
        found = [name for pattern in patterns for name in matches(pattern, names)]
        if missing := [pattern for pattern in patterns if not matches(pattern, names)]:
            raise ValueError(f"{where}: no place matches {missing[0]!r}; {nearest(missing[0], names)}")
        for name in found:
            if name not in self.kept:
                self.backbone.get_submodule(name).register_forward_hook(Recorder(self.placed.store, _kept(name)))
                self.kept = (*self.kept, name)
        return tuple(found)

    def forward(self, x: Tensor, target: Tensor | None = None, progress: Tensor | None = None) -> Output:
        values = self.placed.store.values
        values[TARGET], values["progress"] = target, progress
        logits = self.backbone(x)
        features, target = values.pop(FEATURES, None), values.pop(TARGET)
        del values["progress"]
        kept = {name: values.pop(_kept(name)) for name in self.kept}
        if len(logits) == len(x):
            return Output(logits, features, self.fc, target, None, kept)
        own, further = slice(0, len(x)), slice(len(x), None)
        copies = Output(logits[further], None if features is None else features[further], self.fc)
        kept = {name: value[own] for name, value in kept.items()}
        return Output(logits[own], None if features is None else features[own], self.fc, target, copies, kept)

    def __deepcopy__(self, memo: dict) -> "Network":
        detach_graphs(self, memo)
        copied = memo[id(self)] = type(self).__new__(type(self))
        copied.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return copied

    def penalties(self) -> dict[str, Tensor]:
        """The `.penalty` of the last forward pass of every placed module that has one, under the placed module's key."""
        found = {key: getattr(component, "penalty", None) for key, component in self.placed.components()}
        return {key: penalty for key, penalty in found.items() if penalty is not None}

    def statistics(self) -> dict[str, Tensor]:
        """Scalars of the last forward pass to be logged, by `<key of the placed module>/<name>`: the modules' `.statistics`, a dict."""
        found = {key: getattr(component, "statistics", {}) for key, component in self.placed.components()}
        return {f"{key}/{name}": value for key, values in found.items() for name, value in values.items()}

    def maps(self) -> dict[str, Tensor]:
        """The attention map (B, 1, H, W) of the last forward pass of every placed module that has one, under the placed module's key."""
        found = {key: getattr(component, "map", None) for key, component in self.placed.components()}
        return {key: map_B1HW for key, map_B1HW in found.items() if map_B1HW is not None}
