"""Concatenation: the features of several trained networks side by side.   Legend: M members, B batch, D features, K classes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attnlab.network import Output
from attnlab.placement.hooks import Placed


class Concatenation(nn.Module):
    """CAT (Zhang and Bottou, "Learning useful representations for shifting tasks and distributions", arXiv 2212.07346):

        features = [phi_1(x); ...; phi_M(x)],   fc = [W_1, ..., W_M] / M with bias mean_m b_m

    The head as `[2ft]cat` starts it: logits are the mean of the members' logits, until somebody trains `fc` on the joined features. Unlike
    an `Ensemble`, which averages probabilities, it has one final layer, so every OOD head works on it. `members` of the Output are theirs.

    Args:
        members: networks `x -> Output` with features (B, D_m) and a Linear `fc` on them, over the same classes.

    Raises ValueError: no member; a member without features or without a Linear at fc; members that disagree on the classes.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError("a concatenation needs at least one member")
        self.members = nn.ModuleList(members)
        self.placed = Placed()
        self.fc = joined_head([getattr(member, "fc", None) for member in members])

    def forward(self, x: Tensor, target: Tensor | None = None) -> Output:
        outs = [member(x) for member in self.members]
        if any(out.features is None for out in outs):
            raise ValueError("a concatenation joins features, and a member names no `features` place")
        features_BD = torch.cat([out.features.flatten(1) for out in outs], 1)
        return Output(self.fc(features_BD), features_BD, self.fc, members=tuple(outs))


def joined_head(heads: Sequence[nn.Module | None]) -> nn.Linear:
    """The Linear on joined features that gives the mean of the heads' logits. ValueError: a head that is no Linear, other classes."""
    for head in heads:
        if not isinstance(head, nn.Linear):
            raise ValueError(f"a concatenation needs a Linear at fc of every member, one has {type(head).__name__}")
    if len({head.out_features for head in heads}) > 1:
        raise ValueError(f"members disagree on the classes: {', '.join(str(head.out_features) for head in heads)}")
    first = heads[0].weight
    size, classes = sum(head.in_features for head in heads), heads[0].out_features
    joined = nn.Linear(size, classes, device=first.device, dtype=first.dtype)
    biases = [head.bias if head.bias is not None else first.new_zeros(classes) for head in heads]
    with torch.no_grad():
        joined.weight.copy_(torch.cat([head.weight for head in heads], 1) / len(heads))
        joined.bias.copy_(torch.stack(biases).mean(0))
    return joined
