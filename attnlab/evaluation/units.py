"""Units: how many are dead, and how many directions the features use.   Legend: N images, C channels, D features."""

import torch
from torch import Tensor

from attnlab.evaluation.activations import over_activations
from attnlab.evaluation.trained import Trained


def effective_rank(x_ND: Tensor) -> float:
    """exp(H(p)), p the singular values of the centred matrix over their sum (Roy and Vetterli, "The effective rank", 2007): in
    [1, min(N, D)]; 0 where all rows are equal."""
    s = torch.linalg.svdvals(x_ND.double() - x_ND.double().mean(0))
    p = s / s.sum()
    return float(torch.special.entr(p).sum().exp()) if s.sum() > 0 else 0.0


class Units:
    """`units/dead`, the share of activation channels that are 0 for all of `num` test images, mean over the activation modules, and
    `units/most_dead`, that of the module with most; `units/effective_rank` of the features, and `units/rank_share`, over their dimension.

    What Oyedotun et al. (ICPR 2020) watch in networks without skip connections, in our reading: dead units and features that collapse on
    few directions. num >= 2: images, every class in proportion. ValueError: num below 2; a network without activation modules.
    """

    takes_label_sets = True

    def __init__(self, *, num: int = 1000) -> None:
        if num < 2:
            raise ValueError(f"num must be at least 2 images, got {num}")
        self.num = num

    def run(self, trained: Trained) -> dict[str, float]:
        largest: dict[str, Tensor] = {}

        def see(name: str, before: Tensor, after: Tensor) -> None:
            size_BC = after.abs().flatten(2).amax(2) if after.ndim > 2 else after.abs()
            size_C = size_BC.amax(0)
            largest[name] = torch.maximum(largest[name], size_C) if name in largest else size_C

        bank = over_activations(trained, self.num, see)
        dead = [float((size_C == 0).double().mean()) for size_C in largest.values()]
        found = {"units/dead": sum(dead) / len(dead), "units/most_dead": max(dead)}
        if bank.features.shape[1]:
            rank = effective_rank(bank.features)
            found |= {"units/effective_rank": rank, "units/rank_share": rank / bank.features.shape[1]}
        return found
