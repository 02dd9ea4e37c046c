"""InsideBias: a biased network found by its activations, before its accuracy shows it.

Legend: B batch, N images, C channels, h, w map, G groups.
"""

import torch
from torch import Tensor, nn

from attnlab.evaluation.trained import TEST, Trained
from attnlab.explainers.attribution import undisturbed
from attnlab.explainers.feature_maps import BACKBONE, map_places

BATCH = 256


class InsideBias:
    """Activation ratio of the groups of the test images, a place (Serna et al., InsideBias, 2004.06592):

        lambda(x) = max_c mean_hw ReLU(A_c(x)),   Lambda_g = mean of lambda over group g,   r = min_g Lambda_g / max_g Lambda_g

    `inside_bias/<place>/ratio` in [0, 1], 1: the groups activate the place alike; `inside_bias/ratio`: of the last place, which the paper
    looks at; `inside_bias/<group>/acc`: accuracy of each group, numbered. A group that was rare in training activates deep places less.
    What ratio is fair depends on data and network: compare it with that of a run on balanced data, images of equal contrast in all groups.
    It cannot say whether the groups differ in what is to be seen.

    Groups: the `groups` of the test images (`data=digits data.colour_bias=0.95`). Nothing is done where they have none.

    Args:
        num: images at most, every class in proportion; the paper needs 15 a group.

    Places: the parts of the backbone of first rank that give feature maps (of a ResNet: its stem and its four stages). Our reading: the
    equation is recalled, not read.
    """

    def __init__(self, *, num: int = 1000) -> None:
        if num < 1:
            raise ValueError(f"num must be at least 1, got {num}")
        self.num = num

    def run(self, trained: Trained) -> dict[str, float]:
        if getattr(trained.data.split(TEST), "groups", None) is None:
            return {}
        chosen_N, images = trained.choice(TEST, self.num, seed=trained.seed)
        seen, maps = map_places(trained.network, trained.data.shape, who="inside_bias")
        places = sorted((name for name in maps if "." not in name), key=lambda name: seen[name].end)
        batches = [trained.data.normalise(part).to(trained.settings.device) for part in images.images.split(BATCH)]
        found = {}
        for name, lambda_N in activations(trained.network, batches, places).items():
            found[f"inside_bias/{name}/ratio"] = found["inside_bias/ratio"] = activation_ratio(lambda_N.cpu(), images.groups)
        right_N = (trained.logits(TEST)[0][chosen_N].argmax(1) == images.labels).double()
        return found | {f"inside_bias/{g}/acc": float(right_N[images.groups == g].mean()) for g in images.groups.unique().tolist()}


def activations(network: nn.Module, batches: list[Tensor], places: list[str]) -> dict[str, Tensor]:
    """lambda (N,) of every place of the backbone, in their order; no hook stays."""
    found: dict[str, list[Tensor]] = {name: [] for name in places}

    def watch(module: nn.Module, args: tuple, output: Tensor, *, name: str) -> None:
        found[name].append(output.relu().mean((2, 3)).amax(1))

    handles = [
        network.get_submodule(BACKBONE + name).register_forward_hook(lambda *given, name=name: watch(*given, name=name)) for name in places
    ]
    try:
        for x in batches:
            with torch.no_grad(), undisturbed(network, x.device.type):
                network(x)
    finally:
        for handle in handles:
            handle.remove()
    return {name: torch.cat(parts) for name, parts in found.items()}


def activation_ratio(lambda_N: Tensor, groups_N: Tensor) -> float:
    """min_g Lambda_g / max_g Lambda_g in [0, 1]; 1 where nothing is active."""
    mean_G = torch.stack([lambda_N[groups_N == g].double().mean() for g in groups_N.unique()])
    return float(mean_G.min() / mean_G.max()) if mean_G.max() > 0 else 1.0
