"""Scores of attributions and maps beside faithfulness: completeness, class sensitivity, infidelity, stability, sparseness.

Attributions are signed and (B, C, H, W), maps (B, 1, H, W); all scores are (B,), one an image.

Legend: B batch, C channels, H, W image size, R draws, K classes.
"""

from collections.abc import Callable
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.explainers.attribution import logits_of, rows_a_pass, undisturbed


def completeness_gap(
    network: nn.Module, x_BCHW: Tensor, attribution_BCHW: Tensor, target_B: Tensor, *, baseline: Tensor | float = 0.0
) -> Tensor:
    """| sum attribution - (y_c(x) - y_c(x')) | >= 0, lower is better; y_c the logit of the class, x' the baseline (0: the mean colour).

    For methods that claim completeness (integrated gradients), where it is the error of the integral; for others it is a number to report.
    """
    change_B = scores(network, x_BCHW, target_B) - scores(network, torch.zeros_like(x_BCHW) + baseline, target_B)
    return (attribution_BCHW.flatten(1).sum(1) - change_B).abs()


def class_sensitivity(maps_KBCHW: Tensor) -> Tensor:
    """Mean cosine between the maps of all pairs of different classes, in [-1, 1]; near 1: the map hardly depends on the class explained.

    maps_KBCHW: attributions or maps of at least two classes, the first axis. Low says that maps differ, not that they are right. A map of
    zeros has cosine 0 with any.
    """
    if len(maps_KBCHW) < 2:
        raise ValueError(f"class sensitivity compares the maps of at least two classes, got {len(maps_KBCHW)}")
    unit_KBN = F.normalize(maps_KBCHW.flatten(2), dim=2, eps=torch.finfo(maps_KBCHW.dtype).tiny)
    first, second = (list(index) for index in zip(*combinations(range(len(unit_KBN)), 2)))
    return (unit_KBN[first] * unit_KBN[second]).sum(2).mean(0)


def infidelity(
    network: nn.Module, x_BCHW: Tensor, attribution_BCHW: Tensor, target_B: Tensor, *, noise_RBCHW: Tensor, normalise: bool = False
) -> Tensor:
    """mean_r ( I_r . a - (y_c(x) - y_c(x - I_r)) )^2 >= 0 (Yeh et al., 1901.09392); lower is better.

    I_r are the perturbations noise_RBCHW, in units of the normalised image. normalise: a is first multiplied by each image's best factor,
    sum_r (I_r . a) d_r / sum_r (I_r . a)^2, so that methods on other scales compare. Small perturbations favour the gradient.
    """
    predicted_RB = (noise_RBCHW * attribution_BCHW).flatten(2).sum(2)
    rows = (x_BCHW - noise_RBCHW).flatten(0, 1)
    moved_RB = scores(network, rows, target_B.repeat(len(noise_RBCHW))).view(len(noise_RBCHW), -1)
    change_RB = scores(network, x_BCHW, target_B) - moved_RB
    if normalise:
        square_B = (predicted_RB**2).sum(0)
        factor_B = torch.where(square_B > 0, (predicted_RB * change_RB).sum(0) / torch.where(square_B > 0, square_B, 1), 0)
        predicted_RB = factor_B * predicted_RB
    return ((predicted_RB - change_RB) ** 2).mean(0)


def max_sensitivity(
    attribute: Callable[[nn.Module, Tensor, Tensor], Tensor], network: nn.Module, x_BCHW: Tensor, target_B: Tensor, *, noise_RBCHW: Tensor
) -> Tensor:
    """max_r |a(x + I_r) - a(x)| / |a(x)| >= 0 (Yeh et al., 1901.09392), L2 norms; lower = more stable. A constant map is perfectly stable.

    attribute: an explainer's `attribute` or `explain`, `(network, x, target) -> (B, ., H, W)`.
    """
    clean_BN = attribute(network, x_BCHW, target_B).flatten(1)
    moved_RBN = attribute(network, (x_BCHW + noise_RBCHW).flatten(0, 1), target_B.repeat(len(noise_RBCHW)))
    change_RB = (moved_RBN.flatten(1).view(len(noise_RBCHW), *clean_BN.shape) - clean_BN).norm(dim=2)
    size_B = clean_BN.norm(dim=1)
    return change_RB.amax(0) / torch.where(size_B > 0, size_B, 1)


def sparseness(map_B1HW: Tensor) -> Tensor:
    """Gini index of |map| in [0, 1) (Chalasani et al., 1810.06583): 0 for a uniform map, near 1 where few pixels hold all.

    sum_i (2 i - n - 1) v_i / (n sum_i v_i),  v_1 <= ... <= v_n. Neither end is better. A map of zeros has 0.
    (Quantus adds 1e-7 to every pixel.)
    """
    v_BN = map_B1HW.flatten(1).abs().sort(1).values
    n = v_BN.shape[1]
    weight_N = 2 * torch.arange(1, n + 1, device=v_BN.device, dtype=v_BN.dtype) - n - 1
    total_B = v_BN.sum(1)
    return torch.where(total_B > 0, (v_BN * weight_N).sum(1) / (n * torch.where(total_B > 0, total_B, 1)), 0)


@torch.no_grad()
def scores(network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
    """The logits (B,) of the classes, in chunks."""
    with undisturbed(network, x_BCHW.device.type):
        parts = zip(x_BCHW.split(size := rows_a_pass(x_BCHW)), target_B.split(size))
        return torch.cat([logits_of(network, part).gather(1, chosen[:, None])[:, 0] for part, chosen in parts])
