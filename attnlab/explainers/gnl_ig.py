"""Integrated gradients with guided non-linearities (Kwon, Koo and Cho, ICPR 2020).   Legend: B batch, C channels, H, W image size."""

from functools import partial
from typing import get_args

from torch import Tensor, nn

from attnlab.explainers.attribution import channel_sum
from attnlab.explainers.guided_backprop import PoolRule, guided_gradient
from attnlab.explainers.ig import path_gradients


class GuidedNonLinearity:
    """attribution = (x - x') * sum_n w_n R(x' + a_n (x - x')),  R the gradient of y_c with, at every unit of gradient g = R_out:

    ReLU:      R_in = 1[in > 0] max(g, 0)
    max-pool:  clean:   R_in = unpool(max(g, 0))
               authors: R_in = 1[up(g) > 0] unpool(g), up: nearest-neighbour upsampling to the input's size
               none:    R_in = unpool(g)

    Baseline 0, Gauss-Legendre rule, as IntegratedGradients. Not complete: the sum is not y_c(x) - y_c(x'). Maps of different classes are
    nearly alike (`class_sensitivity` of 0.9 where IG has 0), as those of guided backprop, which is R at one point. The map is the sum over
    channels, signed; scores rank by magnitude (`signed`), as the authors' do.

    Args:
        steps: points of the path.
        pool_rule: `authors` is their code; it is what they mean, `clean`, only where pools do not overlap (a ResNet's stem does). Where a
            pool's input comes from a ReLU and pools do not overlap, all three agree.

    Differs from the authors' code in: any ReLU is met, functional ones too (they hook modules, so a GoogLeNet with F.relu would lose all
    of them); images need not be square. "Guided IG" (Kapishnikov et al., CVPR 2021) is another method.

    Raises ValueError: unknown rule, steps < 1, no ReLU.
    """

    signed = True

    def __init__(self, *, steps: int = 50, pool_rule: PoolRule = "clean") -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        if pool_rule not in get_args(PoolRule):
            raise ValueError(f"pool_rule must be one of {', '.join(get_args(PoolRule))}, got {pool_rule!r}")
        self.steps, self.pool_rule = steps, pool_rule

    def attribute(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor, *, baseline: Tensor | float = 0.0) -> Tensor:
        """(B, C, H, W), signed; `baseline` broadcasts to x."""
        guided = partial(guided_gradient, pool_rule=self.pool_rule)
        return path_gradients(guided, network, x_BCHW, target_B, steps=self.steps, baseline=baseline)

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor, *, baseline: Tensor | float = 0.0) -> Tensor:
        return channel_sum(self.attribute(network, x_BCHW, target_B, baseline=baseline))
