"""Integrated gradients (Sundararajan et al., 1703.01365).   Legend: B batch, C channels, H, W image size, N points of the path."""

import torch
from torch import Tensor, nn

from attnlab.explainers.attribution import GradientRule, channel_sum, score_gradient, weighted_gradients


class IntegratedGradients:
    """attribution = (x - x') * sum_n w_n dy_c/dx (x' + a_n (x - x')),  (a_n, w_n) the Gauss-Legendre rule on [0, 1].

    It sums to y_c(x) - y_c(x') up to the error of the rule (completeness). The map is its sum over channels, signed; scores rank by
    magnitude (`signed`).

    Args:
        steps: points of the rule. The paper has a Riemann sum; the rule here is captum's default, with float64 nodes and weights.

    The baseline x' is 0, which in normalised images is the data's mean colour; `baseline` gives another. Raises ValueError: steps < 1.
    """

    signed = True

    def __init__(self, *, steps: int = 50) -> None:
        if steps < 1:
            raise ValueError(f"steps must be at least 1, got {steps}")
        self.steps = steps

    def attribute(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor, *, baseline: Tensor | float = 0.0) -> Tensor:
        """(B, C, H, W), signed; `baseline` broadcasts to x."""
        return path_gradients(score_gradient, network, x_BCHW, target_B, steps=self.steps, baseline=baseline)

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor, *, baseline: Tensor | float = 0.0) -> Tensor:
        return channel_sum(self.attribute(network, x_BCHW, target_B, baseline=baseline))


def path_gradients(
    gradient: GradientRule, network: nn.Module, x_BCHW: Tensor, target_B: Tensor, *, steps: int, baseline: Tensor | float = 0.0
) -> Tensor:
    """(x - x') * the mean of `gradient` on the straight path from x' to x, by `steps` Gauss-Legendre points."""
    import numpy as np

    nodes_N, weights_N = (
        torch.from_numpy(values).to(x_BCHW)[:, None, None, None, None] for values in np.polynomial.legendre.leggauss(steps)
    )
    difference_BCHW = x_BCHW - baseline

    def points(rows: slice) -> tuple[Tensor, Tensor]:
        return baseline + (1 + nodes_N[rows]) / 2 * difference_BCHW, weights_N[rows] / 2

    return difference_BCHW * weighted_gradients(gradient, network, x_BCHW, target_B, steps, points)
