# B batch, C channels, H W height and width of the map; rectangle_B5 = (cx, cy, w, h, theta)
"""Rectangular attention: look at one oriented rectangle of the feature map."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.attention.position import hidden_channels, score_head
from attnlab.attention.rect_equivariance import draw_similarity, equivariance_loss, transform_map
from attnlab.placement.shapes import check_shape

Profile = Literal["product", "abs", "quadratic"]


def cell_centres(num: int, like: Tensor) -> Tensor:
    """Centres of `num` equal cells of [-1, 1], in the dtype and on the device of `like`."""
    return (2 * torch.arange(num, device=like.device, dtype=like.dtype) + 1) / num - 1


def window(z: Tensor, r: Tensor, sharpness: float | Tensor, profile: Profile) -> Tensor:
    """Smooth indicator of |z| <= r, even in z."""
    if profile == "product":
        return torch.sigmoid(sharpness * (z + r)) * torch.sigmoid(sharpness * (r - z))
    if profile == "abs":
        return torch.sigmoid(sharpness * (r - z.abs()))
    if profile == "quadratic":
        return torch.sigmoid(sharpness * (1 - (z / r.clamp_min(1e-4)).square()))
    raise ValueError(f"profile must be product, abs or quadratic, got {profile!r}")


def rectangle_map(rectangle_B5: Tensor, H: int, W: int, sharpness: float | Tensor = 10.0, profile: Profile = "product") -> Tensor:
    """Attention map A_B1HW in [0, 1] of oriented rectangles: a pure function, differentiable in all five numbers.

    With cell centres x_j = (2j+1)/W - 1, y_i = (2i+1)/H - 1,
      u = cos(theta) (x - cx) + sin(theta) (y - cy),   v = -sin(theta) (x - cx) + cos(theta) (y - cy),
      A = L(u; w/2) L(v; h/2),   L(z; r) = sigmoid(s (z + r)) sigmoid(s (r - z))         profile "product"
                                           sigmoid(s (r - |z|))                                  "abs"
                                           sigmoid(s (1 - (z / r)^2))                            "quadratic"
    Centre and full widths w, h in map coordinates ([-1, 1] both ways, y down), theta in radians, s > 0 per map unit
    ("quadratic": without unit, its edge widens with the rectangle). Computed and returned in fp32, or fp64 if given so.
    """
    with torch.autocast(rectangle_B5.device.type, enabled=False):
        rectangle_B5 = rectangle_B5.to(torch.promote_types(rectangle_B5.dtype, torch.float32))
        cx, cy, w, h, theta = rectangle_B5[:, :, None, None].unbind(1)
        dx = cell_centres(W, rectangle_B5) - cx
        dy = cell_centres(H, rectangle_B5)[:, None] - cy
        cos, sin = theta.cos(), theta.sin()
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        return (window(u, w / 2, sharpness, profile) * window(v, h / 2, sharpness, profile))[:, None]


def moments_rectangle(scores_B1HW: Tensor, *, factor: float, rotate: bool = True) -> Tensor:
    """Rectangle_B5 of p = softmax(scores): its mean is the centre, its principal axes the axes, factor * std the widths.

    Every cell counts as a uniform patch (variances 1/(3 W^2) and 1/(3 H^2) are added): a uniform p has a standard
    deviation of exactly 1/sqrt(3) for any H, W >= 1, and all mass on one cell still has a size.
    w is the major axis (w >= h, theta in [-pi/2, pi/2]); without `rotate` theta = 0, w is along x and h along y.
    Covariant under translation inside the map, flips, and quarter turns of a square map.
    """
    with torch.autocast(scores_B1HW.device.type, enabled=False):
        scores = scores_B1HW.to(torch.promote_types(scores_B1HW.dtype, torch.float32))
        H, W = scores.shape[-2:]
        p_BHW = scores.flatten(1).softmax(1).unflatten(1, (H, W))
        p_BW, p_BH = p_BHW.sum(1), p_BHW.sum(2)
        x_W, y_H = cell_centres(W, scores), cell_centres(H, scores)
        cx, cy = (p_BW * x_W).sum(1), (p_BH * y_H).sum(1)
        dx_BW, dy_BH = x_W - cx[:, None], y_H - cy[:, None]
        cell_x, cell_y = 1 / (3 * W * W), 1 / (3 * H * H)
        xx = (p_BW * dx_BW.square()).sum(1) + cell_x
        yy = (p_BH * dy_BH.square()).sum(1) + cell_y
        if not rotate:
            return torch.stack([cx, cy, factor * xx.sqrt(), factor * yy.sqrt(), torch.zeros_like(cx)], 1)
        xy = (p_BHW * dy_BH[:, :, None] * dx_BW[:, None, :]).sum((1, 2))
        # closed-form eigenvalues of [[xx, xy], [xy, yy]]; 1e-12 keeps the slope of the root finite on an isotropic map
        mean, diff = (xx + yy) / 2, (xx - yy) / 2
        root = (diff.square() + xy.square() + 1e-12).sqrt()
        minor = (mean - root).clamp_min(min(cell_x, cell_y))  # true lower bound of the eigenvalue: only rounding crosses it
        theta = half_angle(xy, diff, 0.05 * mean)
        return torch.stack([cx, cy, factor * (mean + root).sqrt(), factor * minor.sqrt(), theta], 1)


def half_angle(y: Tensor, x: Tensor, softening: Tensor) -> Tensor:
    """atan2(y, x) / 2 with a gradient that stays finite where the angle is not identifiable.

    The true gradient (x dy - y dx) / (2 r^2), r = |(x, y)|, is unbounded as r -> 0. Here r^2 + softening^2 divides it:
    at most 1 / (4 softening), and 0 at r = 0. The value is exact.
    """
    x0, y0, softening = x.detach(), y.detach(), softening.detach()
    slope = (x0 * y - y0 * x) / (2 * (x0.square() + y0.square() + softening.square()))
    return torch.atan2(y0, x0) / 2 + (slope - slope.detach())


class MomentsHead(nn.Module):
    """A score per cell, and the rectangle that has the moments of its softmax: see `moments_rectangle`."""

    def __init__(self, channels: int, *, reduction: int, init_size: float, rotate: bool):
        super().__init__()
        self.factor, self.rotate = init_size * math.sqrt(3), rotate
        self.score = score_head(channels, hidden_channels(channels, reduction))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return moments_rectangle(self.score(x_BCHW), factor=self.factor, rotate=self.rotate)


class GridHead(nn.Module):
    """conv3x3(C -> C/r), BN, ReLU, adaptive 4x4 average pooling, Linear 64, ReLU, Linear 5: the five numbers themselves.

    The 4x4 grid keeps the position: a global average is the same wherever the object is, so it could not localise.
    cx, cy = tanh(a); w, h = .15 + 2.85 sigmoid(a); theta = pi/2 tanh(a), with a = GAIN * Linear.
    """

    MIN_SIZE, MAX_SIZE = 0.15, 3.0  # 3: to cover [-1, 1]^2 with a smooth edge takes more than 2
    # The five biases are common to all images and see the sum of all gradients: at GAIN 1 and lr .1 they ran into a corner
    # within an epoch and the tanh never let them out (accuracy .25); .3 divides their step by 11.
    GAIN = 0.3
    # w = init_size * ASPECT, h = init_size / ASPECT: a soft-edged square looks the same from every side, so with w = h
    # the angle would begin with next to no gradient.
    ASPECT = 1.1

    def __init__(self, channels: int, *, reduction: int, init_size: float, rotate: bool):
        super().__init__()
        low, high = self.MIN_SIZE * self.ASPECT, self.MAX_SIZE / self.ASPECT
        if not low < init_size < high:
            raise ValueError(f"init_size must be in ({low:.3g}, {high:.3g}) for the grid predictor, got {init_size}")
        self.rotate = rotate
        hidden = hidden_channels(channels, reduction)
        self.conv = nn.Conv2d(channels, hidden, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.fc1 = nn.Linear(16 * hidden, 64)
        self.fc2 = nn.Linear(64, 5)
        size = torch.tensor([init_size * self.ASPECT, init_size / self.ASPECT])
        with torch.no_grad():
            self.fc2.bias.zero_()
            self.fc2.bias[2:4] = torch.logit((size - self.MIN_SIZE) / (self.MAX_SIZE - self.MIN_SIZE)) / self.GAIN

    def forward(self, x_BCHW: Tensor) -> Tensor:
        f = F.relu(self.bn(self.conv(x_BCHW)))
        f = self.fc2(F.relu(self.fc1(F.adaptive_avg_pool2d(f, 4).flatten(1))))
        with torch.autocast(x_BCHW.device.type, enabled=False):
            centre, size, angle = (self.GAIN * f.to(torch.promote_types(f.dtype, torch.float32))).split([2, 2, 1], 1)
            size = self.MIN_SIZE + (self.MAX_SIZE - self.MIN_SIZE) * size.sigmoid()
            angle = math.pi / 2 * angle.tanh() if self.rotate else torch.zeros_like(angle)
            return torch.cat([centre.tanh(), size, angle], 1)


class RectAttention(nn.Module):
    """y = x * A, where A is a smooth oriented rectangle predicted from x: the Convolutional Rectangular Attention Module.

    arXiv 2503.10875. Established: one rectangle per input, five numbers (centre, size, angle), differentiable, trained
    end to end, put into any CNN; a position-wise map (`PositionAttention`) is the baseline of all tables.
    Our reading, as no code is published and the text we have leaves it open: the smooth function (`rectangle_map`), the
    predictor, where it is placed, the sharpness, the initial rectangle, and that equivariance is a property of the
    parametrisation; as a loss term it is an option, off by default. The area term is ours.

    shape: (C, H, W) of one image's features at the place, such as (64, 32, 32); x and y: (B, C, H, W), any B, H, W >= 1.
    predictor: "moments": a score map, whose softmax mean and covariance give the rectangle, so it moves, flips and turns
      with the scores by construction; "grid": 4x4 pooling and two Linears give the five numbers (`GridHead`).
    init_size: initial w and h, map units (2 = the whole map). grid: the initial rectangle, within 10%. moments: widths are
      init_size * sqrt(3) standard deviations; the initial scores are nearly uniform, a uniform map has 1/sqrt(3), so it
      starts near init_size too. The factor stays: the rectangle is init_size / 2 times as wide as a uniform region of
      scores, and 2 gives it exactly the moments of the scores.
    sharpness: s > 0, edge width about 4/s map units. learn_sharpness: s * exp(g), g learned from 0 (so weight decay
      pulls to s). profile: see `rectangle_map`. rotate: False fixes theta = 0. reduction: hidden channels C / reduction.
    area_weight: >= 0; area_weight * mean(A) is part of `.penalty`.
    equivariance_weight: >= 0; in training mode equivariance_weight * L_eq (`equivariance_loss`) is part of `.penalty`. A random
      similarity T per image (shifts to .25, turns to 30 degrees, scales .8 to 1.25) acts on the feature map x, since the image is
      out of reach here, and the same head predicts once more: a second pass of the head alone. It normalises by its own batch and
      leaves the running statistics of batch norm as they are. Without `rotate` T does not turn. 0: no pass, nothing is drawn.
    Kept from the last forward, in its graph: `.map` (B, 1, H, W) in [0, 1]; `.rectangle` (B, 5): cx, cy, full widths w, h
    in map coordinates [-1, 1], theta in radians; `.penalty`, the sum of its terms, or None where both weights are 0.
    Raises ValueError for a place without (C, H, W) or a value out of range.

    Why these defaults (10 classes of digits among pieces of other digits, 40x40, after the second stage). Near the identity
    (2.6) grid does not move: the whole map, IoU .14. At 1 it follows the digit, then grows back without the area term (IoU
    .29). moments with 1 and weight .1 shrinks to a spot in the digit (IoU .28); with 1.5 to 2 and .1 it keeps its extent
    (IoU .43 to .45, centre inside the digit's box 92 to 97%; a centred box has IoU .24) at the accuracy of no attention
    (.770 and .758, two seeds of a tiny network); grid 1.5, .1: IoU .42. A weight of .5 makes moments a point.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        sharpness: float = 10.0,
        predictor: Literal["grid", "moments"] = "moments",
        init_size: float = 1.5,
        area_weight: float = 0.1,
        equivariance_weight: float = 0.0,
        rotate: bool = True,
        profile: Literal["product", "abs", "quadratic"] = "product",
        learn_sharpness: bool = False,
        reduction: int = 4,
    ):
        super().__init__()
        heads = {"grid": GridHead, "moments": MomentsHead}
        check_shape(shape, "CHW", what="rectangular attention")
        if predictor not in heads:
            raise ValueError(f"predictor must be grid or moments, got {predictor!r}")
        if profile not in ("product", "abs", "quadratic"):
            raise ValueError(f"profile must be product, abs or quadratic, got {profile!r}")
        for key, value in {"sharpness": sharpness, "init_size": init_size, "reduction": reduction}.items():
            if not value > 0:
                raise ValueError(f"{key} must be > 0, got {value}")
        for key, value in {"area_weight": area_weight, "equivariance_weight": equivariance_weight}.items():
            if not value >= 0:
                raise ValueError(f"{key} must be >= 0, got {value}")
        self.sharpness, self.profile, self.rotate = sharpness, profile, rotate
        self.area_weight, self.equivariance_weight = area_weight, equivariance_weight
        self.predictor = heads[predictor](shape[0], reduction=reduction, init_size=init_size, rotate=rotate)
        self.log_gain = nn.Parameter(torch.zeros(())) if learn_sharpness else None
        self.map: Tensor | None = None
        self.rectangle: Tensor | None = None
        self.penalty: Tensor | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        H, W = x_BCHW.shape[-2:]
        sharpness = self.sharpness if self.log_gain is None else self.sharpness * self.log_gain.exp()
        self.rectangle = self.predictor(x_BCHW)
        self.map = rectangle_map(self.rectangle, H, W, sharpness, self.profile)
        self.penalty = self.area_weight * self.map.mean() if self.area_weight else None
        if self.equivariance_weight and self.training:
            term = self.equivariance_weight * self.equivariance(x_BCHW)
            self.penalty = term if self.penalty is None else self.penalty + term
        return x_BCHW * self.map.to(x_BCHW.dtype)

    def equivariance(self, x_BCHW: Tensor) -> Tensor:
        """L_eq of the last rectangle under one random similarity of the map per image."""
        similarity_B4 = draw_similarity(self.rectangle, rotate=self.rotate)
        norms = [module for module in self.predictor.modules() if isinstance(module, nn.BatchNorm2d)]
        try:
            for norm in norms:  # by the batch's statistics as before, but kept out of the running ones
                norm.track_running_stats = False
            found_B5 = self.predictor(transform_map(x_BCHW, similarity_B4))
        finally:
            for norm in norms:
                norm.track_running_stats = True
        return equivariance_loss(found_B5, self.rectangle, similarity_B4)

    def __getstate__(self):  # a copy takes the weights, not the graph of the last batch (which cannot be copied)
        return {**super().__getstate__(), "map": None, "rectangle": None, "penalty": None}
