"""Packing: several networks of one architecture in one pass.   Legend: M networks, B batch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from attnlab.network import Output

if TYPE_CHECKING:
    from attnlab.network import Network


def packed_outputs(networks: "Sequence[Network]", images: Sequence[Tensor], y: Tensor) -> list[Output]:
    """What each network says of its own images (B, ...), as `network(images)` would: their weights are stacked, and `vmap` runs over them.

    Gradients reach every network's own parameters, running statistics its own buffers. Random draws differ between the networks, and from
    those that they would make one after another. The networks must have nothing placed in them: a hook would keep a value of the pass.
    """
    parameters = [dict(network.named_parameters()) for network in networks]
    buffers = [dict(network.named_buffers()) for network in networks]
    stacked = [{name: torch.stack([one[name] for one in group]) for name in group[0]} for group in (parameters, buffers)]

    def call(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> tuple[Tensor, ...]:
        out = functional_call(networks[0], (parameters, buffers), (x,))
        return (out.logits,) if out.features is None else (out.logits, out.features)

    logits_M, *features = vmap(call, randomness="different")(*stacked, torch.stack(list(images)))
    with torch.no_grad():
        for name, after_M in stacked[1].items():
            torch._foreach_copy_([one[name] for one in buffers], list(after_M.unbind()))
    features_M = features[0] if features else [None] * len(networks)
    return [Output(logits, one, network.fc, y) for network, logits, one in zip(networks, logits_M, features_M)]
