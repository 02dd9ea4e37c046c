"""The model randomisation test: does a map change when the network forgets? (Adebayo et al., Sanity Checks, 1810.03292)

Legend: B batch, C channels, H, W image size, S stages, N pixels.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from attnlab.explainers.attribution import undisturbed


def randomisation(networks: "list[nn.Module]", explainer: Any, x_BCHW: Tensor, map_B1HW: Tensor, target_B: Tensor) -> Tensor:
    """mean_s Spearman( |map|, |map of networks[s]| ), (B,) in [-1, 1]; lower is better.

    networks: `randomised`, copies that have forgotten more and more of their layers, from the output down. Near 1 the map does not
    depend on what was learned (an edge detector); near 0 it does. That it depends on the weights does not make it right, and a map that is
    noise of its own in every call passes. Maps without any variation: 1 where both have none, 0 where one has.

    The paper compares |maps| layer by layer by Spearman's rank correlation; here it is the mean over the stages.
    """
    similar = [rank_correlation(map_B1HW.abs(), explainer.explain(network, x_BCHW, target_B).detach().abs()) for network in networks]
    return torch.stack(similar).mean(0)


def randomised(network: nn.Module, x_BCHW: Tensor, *, stages: int = 4, seed: int = 0) -> list[nn.Module]:
    """Copies of `network`: in copy s of S the last s/S of its layers, in the order in which they run, have their weights shuffled.

    A layer is a module with parameters of its own. Shuffled: every parameter's values are permuted, so that their distribution stays, which
    works for any module (our reading; the paper draws them anew). Of equally many values, such as a single one, nothing changes. Statistics
    of norms stay.
    """
    found, generator = [], torch.Generator().manual_seed(seed)
    current, names = copy.deepcopy(network), list(reversed(_order(network, x_BCHW)))
    for stage in range(stages):
        for name in names[stage * len(names) // stages : (stage + 1) * len(names) // stages]:
            for parameter in current.get_submodule(name).parameters(recurse=False):
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.data.copy_(parameter.data.flatten()[order].view_as(parameter))
        found.append(current)
        current = copy.deepcopy(current)
    return found


def _order(network: nn.Module, x_BCHW: Tensor) -> list[str]:
    """Names of the modules with parameters of their own, in the order in which they first run; at the end those that do not run."""
    layers = {name: module for name, module in network.named_modules() if any(True for _ in module.parameters(recurse=False))}
    seen: dict[str, None] = {}
    handles = [module.register_forward_hook(lambda *_, name=name: seen.setdefault(name)) for name, module in layers.items()]
    try:
        with torch.no_grad(), undisturbed(network, x_BCHW.device.type):
            network(x_BCHW[:1])
    finally:
        for handle in handles:
            handle.remove()
    return list(seen) + [name for name in layers if name not in seen]


def rank_correlation(one_B1HW: Tensor, other_B1HW: Tensor) -> Tensor:
    """Spearman's correlation (B,) in [-1, 1] of the values of two maps; equal values share their mean rank."""
    ranks = []
    for value_BN in (one_B1HW.flatten(1), other_B1HW.flatten(1)):
        sorted_BN = value_BN.sort(1).values.contiguous()
        low, high = (torch.searchsorted(sorted_BN, value_BN.contiguous(), right=right).double() for right in (False, True))
        rank_BN = (low + high) / 2
        ranks.append(rank_BN - rank_BN.mean(1, keepdim=True))
    size_B = ranks[0].norm(dim=1) * ranks[1].norm(dim=1)
    flat_B = ((ranks[0].norm(dim=1) == 0) & (ranks[1].norm(dim=1) == 0)).double()
    return torch.where(size_B > 0, (ranks[0] * ranks[1]).sum(1) / torch.where(size_B > 0, size_B, 1), flat_B)
