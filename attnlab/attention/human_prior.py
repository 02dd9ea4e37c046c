"""Human prior map: spatial attention joined with a map of where people look, or are thought to."""
# B batch, C channels, H height, W width

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape


def centred_gaussian(height: int, width: int, spread: float) -> Tensor:
    """exp(-(u^2 + v^2) / (2 spread^2)), u and v in [-1, 1] at the borders of the outermost cells: (H, W), at most 1."""
    v_H, u_W = ((torch.arange(size) + 0.5) * 2 / size - 1 for size in (height, width))
    return (-(v_H[:, None] ** 2 + u_W**2) / (2 * spread**2)).exp()


class HumanPriorAttention(nn.Module):
    """y = x (1 + G), G = M joined with V: M learned spatial attention, V a map of human attention.

        M = sigmoid(conv7x7([mean over channels; max over channels]))
        G = max(M, V) (rule=max) | M + V - M V (either) | alpha M + (1 - alpha) V (mix; alpha a learned sigmoid, .5 at the start)

    Our reading of the collaborative human-machine attention module (Ralekar et al., ICPR 2020), known from its abstract. Established:
    spatial attention from features combined with a map of eye fixations, in any CNN. Ours: the rules, the residual form, and V: the same
    for all images, as no data set here gives fixations of an image: a centred Gaussian (people look, and photographers point, at the
    middle) or the fixation density of a set of images, given as rows of numbers.

    shape: (C, H, W); x, y: (B, C, H, W). prior: gaussian, or rows of values in [0, 1] (low resolution will do: it is interpolated to H x
    W). spread: of the Gaussian, 1 = half the side. absent: probability per image, in training, that V is left out and G = M, so that the
    attention stands without it; 0 draws nothing. `.map`: G, (B, 1, H, W) in [0, 1] of the last forward. The module is of a fixed size.
    Raises ValueError for another place, rule, prior, spread or absent.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        rule: Literal["max", "either", "mix"] = "either",
        prior: Literal["gaussian"] | Sequence[Sequence[float]] = "gaussian",
        spread: float = 0.5,
        absent: float = 0.0,
    ):
        super().__init__()
        check_shape(shape, "CHW", what="attention with a human prior")
        if rule not in ("max", "either", "mix"):
            raise ValueError(f"rule must be max, either or mix, got {rule!r}")
        if not 0 < spread < float("inf"):
            raise ValueError(f"spread must be above 0, got {spread}")
        if not 0 <= absent <= 1:
            raise ValueError(f"absent must be a probability, got {absent}")
        self.rule, self.absent = rule, absent
        prior_HW = centred_gaussian(*shape[1:], spread) if prior == "gaussian" else _grid(prior)
        prior_11HW = F.interpolate(prior_HW[None, None], shape[1:], mode="bilinear", align_corners=False)
        self.register_buffer("prior", prior_11HW)
        self.attend = nn.Conv2d(2, 1, 7, padding=3, bias=False)
        self.balance = nn.Parameter(torch.zeros(())) if rule == "mix" else None
        self.map: Tensor | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        m_B1HW = self.attend(torch.cat([x_BCHW.mean(1, keepdim=True), x_BCHW.amax(1, keepdim=True)], 1)).sigmoid()
        joined_B1HW = self.join(m_B1HW, self.prior.to(m_B1HW.dtype))
        if self.training and self.absent:
            left_out_B111 = torch.rand(len(x_BCHW), 1, 1, 1, device=x_BCHW.device) < self.absent
            joined_B1HW = torch.where(left_out_B111, m_B1HW, joined_B1HW)
        self.map = joined_B1HW
        return x_BCHW * (1 + joined_B1HW)

    def join(self, m_B1HW: Tensor, v_11HW: Tensor) -> Tensor:
        if self.rule == "max":
            return torch.maximum(m_B1HW, v_11HW)
        if self.rule == "either":
            return m_B1HW + v_11HW - m_B1HW * v_11HW
        alpha = self.balance.sigmoid().to(m_B1HW.dtype)
        return alpha * m_B1HW + (1 - alpha) * v_11HW

    def __getstate__(self):  # a copy takes the weights, not the graph of the last batch (which cannot be copied)
        return {**super().__getstate__(), "map": None}


def _grid(prior: object) -> Tensor:
    try:
        grid_HW = torch.tensor([[float(value) for value in row] for row in prior])
    except (TypeError, ValueError):
        grid_HW = torch.empty(0)
    if grid_HW.ndim != 2 or not grid_HW.numel() or not ((grid_HW >= 0) & (grid_HW <= 1)).all():
        raise ValueError(f"prior must be gaussian, or rows of equally many values in [0, 1], got {prior!r}")
    return grid_HW
