"""Projections of a weight on balls of structured norms.

Legend: x a weight (O, I, ...) of any shape, G groups, n entries of a group, r radius.

A group is an output filter (`per="filter"`: a row of the matrix (O, I k k)) or an input channel (`per="input_channel"`: a column of a
matrix, of a 4-D kernel all that one input channel is multiplied by). All functions are pure, keep shape and dtype, read nothing from the
device (but `nuclear`, whose decomposition does on a GPU), and take radii of 0 (the result is 0); a weight inside its ball stays as it is.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

Per = Literal["filter", "input_channel"]


def l1_vectors(x: Tensor, radius: Tensor | float) -> Tensor:
    """Euclidean projection of every vector x (..., n) on its l1 ball, `radius` >= 0 a number or (...): soft thresholding at the t >= 0
    where sum_i max(|x_i| - t, 0) = r, found by sorting (Duchi et al., ICML 2008)."""
    r = torch.as_tensor(radius, dtype=x.dtype, device=x.device).expand(x.shape[:-1]).unsqueeze(-1)
    sorted_n = x.abs().sort(-1, descending=True).values
    excess_n = sorted_n.cumsum(-1) - r
    count_n = torch.arange(1, x.shape[-1] + 1, dtype=x.dtype, device=x.device)
    kept = (sorted_n * count_n > excess_n).sum(-1, keepdim=True).clamp_min(1)
    t = (excess_n.gather(-1, kept - 1) / kept).clamp_min(0)
    return x.sign() * (x.abs() - t).clamp_min(0)


def l1(x: Tensor, radius: Tensor | float) -> Tensor:
    """On { sum |x| <= r }: all entries as one vector."""
    return l1_vectors(x.flatten(), radius).view_as(x)


def nuclear(x: Tensor, radius: Tensor | float) -> Tensor:
    """On { sum of singular values <= r } of the matrix (O, I k k): the singular values are projected on the l1 ball."""
    u, s, v = torch.linalg.svd(x.flatten(1), full_matrices=False)
    return ((u * l1_vectors(s, radius)) @ v).view_as(x)


def bilevel_l11(x: Tensor, radius: Tensor | float, *, per: Per = "filter") -> Tensor:
    """On { sum |x| <= r }, by whole groups (the library of A13's senior author): u_g = |x_g|_1; u' = P_l1(u, r); x_g <- P_l1(x_g, u'_g).

    Feasible, but not the nearest point of the l1 ball (that is `l1`): groups of small norm vanish altogether.
    """
    return _bilevel(x, radius, per, lambda x_Gn: x_Gn.abs().sum(1), l1_vectors)


def l21(x: Tensor, radius: Tensor | float, *, per: Per = "filter") -> Tensor:
    """On { sum_g |x_g|_2 <= r }: the Euclidean projection; u_g = |x_g|_2; x_g <- x_g P_l1(u, r)_g / u_g."""
    return _bilevel(x, radius, per, lambda x_Gn: x_Gn.norm(dim=1), _l2_vectors)


def bilevel_l1inf(x: Tensor, radius: Tensor | float, *, per: Per = "filter") -> Tensor:
    """On { sum_g max |x_g| <= r }, by whole groups: u_g = max |x_g|; x_g is clipped to +-P_l1(u, r)_g. Feasible, not the nearest point."""
    return _bilevel(x, radius, per, lambda x_Gn: x_Gn.abs().amax(1), lambda x_Gn, u_G: x_Gn.clamp(-u_G[:, None], u_G[:, None]))


def l1_groups(x: Tensor, radius: Tensor | float, *, per: Per = "filter") -> Tensor:
    """Every group on the l1 ball by itself, all of radius r (released as `proj_l11ball` of functions_torch_V8, on columns)."""
    return _ungrouped(l1_vectors(grouped(x, per), radius), x, per)


def l1_radii_l2_scaling(x: Tensor, radius: Tensor | float, *, per: Per = "filter") -> Tensor:
    """What functions_torch_V8 releases as `proj_l21ball`: x_g on the l2 ball of radius P_l1(|x|_1, r)_g. No projection on the l2,1 ball
    (`l21` is): the radii are shared out by l1 norms. For comparison with published numbers only."""
    x_Gn = grouped(x, per)
    return _ungrouped(_l2_vectors(x_Gn, l1_vectors(x_Gn.abs().sum(1), radius)), x, per)


def _bilevel(
    x: Tensor, radius: Tensor | float, per: Per, norms: Callable[[Tensor], Tensor], inner: Callable[[Tensor, Tensor], Tensor]
) -> Tensor:
    """The groups' norms on the l1 ball, then every group on its own ball of the radius that is left to it."""
    x_Gn = grouped(x, per)
    return _ungrouped(inner(x_Gn, l1_vectors(norms(x_Gn), radius)), x, per)


def _l2_vectors(x_Gn: Tensor, radius_G: Tensor) -> Tensor:
    """Every row on its l2 ball."""
    norm_G = x_Gn.norm(dim=1)
    return x_Gn * torch.where(norm_G > radius_G, radius_G / norm_G, 1)[:, None]


def grouped(x: Tensor, per: Per) -> Tensor:
    """(G, n): a group a row."""
    return (x if per == "filter" else x.transpose(0, 1)).flatten(1)


def _ungrouped(x_Gn: Tensor, like: Tensor, per: Per) -> Tensor:
    if per == "filter":
        return x_Gn.view_as(like)
    return x_Gn.view(like.transpose(0, 1).shape).transpose(0, 1).contiguous()
