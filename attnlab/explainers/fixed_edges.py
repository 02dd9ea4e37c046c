"""Relevance at a fixed first layer, by colour, edge filter and pixel (Jung and Kwon, ICPR 2020).

Legend: B batch, C channels, F filters, H, W image size, h, w size of the first layer's maps.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.backbones.fixed_edges import FixedEdges
from attnlab.explainers.attribution import rows_a_pass
from attnlab.explainers.feature_maps import BACKBONE, maps_and_gradients
from attnlab.explainers.lrp import LRP, RelevanceRules, Rule


class Relevances(NamedTuple):
    """color_BC, filter_BF and pixel_B1hw: three sums of one relevance (B, C, F, h, w), so the total of each is the same."""

    color_BC: Tensor
    filter_BF: Tensor
    pixel_B1hw: Tensor


class FixedEdgeRelevance:
    """map = the relevance of the maps of a `FixedEdges` layer (model.stem=edges), summed over colours and filters; signed.

    Relevance is by LRP (see `LRP`, whose arguments these are) from the class's logit down to that layer. `relevances` gives the three
    sums of the paper: by colour, by edge filter, and by pixel. Where the layer has a stride the map is brought to the image's size by
    nearest-neighbour interpolation. Scores rank by magnitude (`signed`).

    Our reading: the paper's variant of LRP is not known to us. Raises ValueError: a network without such a layer; else as LRP.
    """

    signed = True

    def __init__(self, *, rule: Rule = "epsilon", epsilon: float = 1e-9, gamma: float = 0.25, zero_bias: bool = False) -> None:
        self.lrp = LRP(rule=rule, epsilon=epsilon, gamma=gamma, zero_bias=zero_bias)

    def relevances(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Relevances:
        places = [name for name, module in network.named_modules() if isinstance(module, FixedEdges) and name.startswith(BACKBONE)]
        if not places:
            raise ValueError("fixed_edges explains networks with a first layer of fixed edge filters: train with model.stem=edges")
        place, parts = places[0].removeprefix(BACKBONE), []
        for x, target in zip(x_BCHW.split(rows := rows_a_pass(x_BCHW)), target_B.split(rows)):
            with RelevanceRules(self.lrp):
                ((maps, gradient),) = maps_and_gradients(network, x, target, [place], who=type(self).__name__)
            parts.append(maps * gradient)
        relevance_BCFhw = torch.cat(parts).unflatten(1, (network.get_submodule(places[0]).channels, -1))
        return Relevances(relevance_BCFhw.sum((2, 3, 4)), relevance_BCFhw.sum((1, 3, 4)), relevance_BCFhw.sum((1, 2))[:, None])

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        """Maps (B, 1, H, W), signed."""
        return F.interpolate(self.relevances(network, x_BCHW, target_B).pixel_B1hw, size=x_BCHW.shape[2:], mode="nearest")
