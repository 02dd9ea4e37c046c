# B batch, C channels, H W height and width of the map; rectangle_B5 = (cx, cy, w, h, theta)
"""Rectangular attention: look at one oriented rectangle of the feature map."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Profile = Literal["product", "abs", "quadratic"]

ASPECT = 1.1  # initial w / init_size and init_size / h of the grid predictor, see RectAttention
MIN_SIZE, MAX_SIZE = 0.15, 3.0  # of the grid predictor; covering the map [-1, 1]^2 needs more than 2


def cell_centres(num: int, like: Tensor) -> Tensor:
    """Centres of `num` equal cells of [-1, 1], in the dtype and on the device of `like`."""
    return (2 * torch.arange(num, device=like.device, dtype=like.dtype) + 1) / num - 1


def window(z: Tensor, r: Tensor, sharpness: float | Tensor, profile: Profile) -> Tensor:
    """Smooth indicator of |z| <= r, even in z, in (0, 1)."""
    if profile == "product":
        return torch.sigmoid(sharpness * (z + r)) * torch.sigmoid(sharpness * (r - z))
    if profile == "abs":
        return torch.sigmoid(sharpness * (r - z.abs()))
    if profile == "quadratic":
        return torch.sigmoid(sharpness * (1 - (z / r.clamp_min(1e-4)).square()))
    raise ValueError(f"profile must be product, abs or quadratic, got {profile!r}")


def rectangle_map(rectangle_B5: Tensor, H: int, W: int, sharpness: float | Tensor = 10.0, profile: Profile = "product") -> Tensor:
    """Attention map A_B1HW in (0, 1) of oriented rectangles; a pure function, differentiable in all five numbers.

    With cell centres x_j = (2j+1)/W - 1, y_i = (2i+1)/H - 1,
      u =  cos(theta) (x - cx) + sin(theta) (y - cy),   v = -sin(theta) (x - cx) + cos(theta) (y - cy),
      A = L(u; w/2) L(v; h/2),   L(z; r) = sigmoid(s (z + r)) sigmoid(s (r - z))   (profile "product"),
    "abs": sigmoid(s (r - |z|)); "quadratic": sigmoid(s (1 - (z/r)^2)), whose edge widens with the rectangle.
    w and h are full widths; positions and sizes are in map coordinates [-1, 1] (y down), theta in radians, s in 1 / map unit.
    """
    with torch.autocast(rectangle_B5.device.type, enabled=False):
        rectangle_B5 = rectangle_B5.to(torch.promote_types(rectangle_B5.dtype, torch.float32))
        cx, cy, w, h, theta = (p[:, None, None] for p in rectangle_B5.unbind(1))
        dx = cell_centres(W, rectangle_B5) - cx
        dy = cell_centres(H, rectangle_B5)[:, None] - cy
        cos, sin = theta.cos(), theta.sin()
        u, v = cos * dx + sin * dy, cos * dy - sin * dx
        return (window(u, w / 2, sharpness, profile) * window(v, h / 2, sharpness, profile))[:, None]


def moments_rectangle(scores_B1HW: Tensor, *, factor: float, rotate: bool = True) -> Tensor:
    """Rectangle_B5 of the distribution softmax(scores): mean = centre, principal axes = axes, factor * std = full widths.

    Each cell counts as a uniform patch (its own variance 1/(3 W^2), 1/(3 H^2) is added), so that a uniform map has a
    standard deviation of exactly 1/sqrt(3) on any H, W >= 1 and a mass on one cell still has a size.
    The major axis is w: theta in [-pi/2, pi/2], w >= h; without `rotate` theta = 0 and w, h follow x and y.
    """
    with torch.autocast(scores_B1HW.device.type, enabled=False):
        scores = scores_B1HW.to(torch.promote_types(scores_B1HW.dtype, torch.float32))
        H, W = scores.shape[-2:]
        p_BHW = scores.flatten(1).softmax(1).unflatten(1, (H, W))
        x_W, y_H = cell_centres(W, scores), cell_centres(H, scores)
        p_BW, p_BH = p_BHW.sum(1), p_BHW.sum(2)
        cx, cy = (p_BW * x_W).sum(1), (p_BH * y_H).sum(1)
        dx_BW, dy_BH = x_W - cx[:, None], y_H - cy[:, None]
        cell_x, cell_y = 1 / (3 * W * W), 1 / (3 * H * H)
        xx = (p_BW * dx_BW.square()).sum(1) + cell_x
        yy = (p_BH * dy_BH.square()).sum(1) + cell_y
        if not rotate:
            return torch.stack([cx, cy, factor * xx.sqrt(), factor * yy.sqrt(), torch.zeros_like(cx)], 1)
        xy = (p_BHW * dy_BH[:, :, None] * dx_BW[:, None, :]).sum((1, 2))
        mean, diff = (xx + yy) / 2, (xx - yy) / 2
        root = (diff.square() + xy.square() + 1e-12).sqrt()  # 1e-12: a finite slope where the map is isotropic
        minor = (mean - root).clamp_min(min(cell_x, cell_y))  # a true lower bound: only rounding can cross it
        theta = half_angle(xy, diff, 0.05 * mean)
        return torch.stack([cx, cy, factor * (mean + root).sqrt(), factor * minor.sqrt(), theta], 1)


def half_angle(y: Tensor, x: Tensor, softening: Tensor) -> Tensor:
    """atan2(y, x) / 2, with its gradient damped where the angle is not identifiable.

    The gradient (x dy - y dx) / (2 r^2) grows without bound as r = |(x, y)| -> 0; here it is divided by r^2 + softening^2,
    so it is at most 1 / (4 softening), and zero at r = 0. The value is exact.
    """
    x0, y0, softening = x.detach(), y.detach(), softening.detach()
    slope = (x0 * y - y0 * x) / (2 * (x0.square() + y0.square() + softening.square()))
    return torch.atan2(y0, x0) / 2 + (slope - slope.detach())


def score_head(channels: int, reduction: int) -> nn.Sequential:
    """conv3x3(C -> C/r), BN, ReLU, conv1x1(-> 1): one score per cell. At least 4 hidden channels, for narrow networks."""
    hidden = max(channels // reduction, 4)
    return nn.Sequential(
        nn.Conv2d(channels, hidden, 3, padding=1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU(), nn.Conv2d(hidden, 1, 1)
    )


class GridHead(nn.Module):
    """conv3x3(C -> C/r), BN, ReLU, adaptive 4x4 average pooling, Linear 64, ReLU, Linear 5: the five numbers themselves.

    The 4x4 grid keeps the position: a global average is the same wherever the object is, so it cannot localise.
    cx, cy = tanh; w, h = 3 (.05 + .95 sigmoid); theta = pi/2 tanh.
    """

    def __init__(self, channels: int, *, reduction: int, init_size: float, rotate: bool):
        super().__init__()
        self.rotate = rotate
        hidden = max(channels // reduction, 4)
        self.conv = nn.Conv2d(channels, hidden, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(hidden)
        self.fc1 = nn.Linear(16 * hidden, 64)
        self.fc2 = nn.Linear(64, 5)
        sizes = torch.tensor([init_size * ASPECT, init_size / ASPECT])
        with torch.no_grad():  # a small weight: every image starts near the same rectangle, yet fc1 has a gradient
            self.fc2.weight.mul_(0.1)
            self.fc2.bias.zero_()
            self.fc2.bias[2:4] = torch.logit((sizes - MIN_SIZE) / (MAX_SIZE - MIN_SIZE))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        f = F.relu(self.bn(self.conv(x_BCHW)))
        f = F.adaptive_avg_pool2d(f, 4).flatten(1)
        f = self.fc2(F.relu(self.fc1(f)))
        with torch.autocast(x_BCHW.device.type, enabled=False):
            f = f.to(torch.promote_types(f.dtype, torch.float32))
            centre, size, angle = f.split([2, 2, 1], 1)
            size = MIN_SIZE + (MAX_SIZE - MIN_SIZE) * size.sigmoid()
            angle = math.pi / 2 * angle.tanh() if self.rotate else torch.zeros_like(angle)
            return torch.cat([centre.tanh(), size, angle], 1)


class RectAttention(nn.Module):
    """placeholder"""

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        sharpness: float = 10.0,
        predictor: Literal["grid", "moments"] = "moments",
        init_size: float = 1.0,
        area_weight: float = 0.1,
        rotate: bool = True,
        profile: Profile = "product",
        learn_sharpness: bool = False,
        reduction: int = 4,
    ):
        super().__init__()
        self.sharpness, self.init_size, self.area_weight = sharpness, init_size, area_weight
        self.rotate, self.profile = rotate, profile
        channels = shape[0]
        if predictor == "grid":
            self.predictor = GridHead(channels, reduction=reduction, init_size=init_size, rotate=rotate)
        else:
            self.predictor = score_head(channels, reduction)
        self.moments = predictor == "moments"
        self.log_gain = nn.Parameter(torch.zeros(())) if learn_sharpness else None
        self.map = self.rectangle = self.penalty = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        H, W = x_BCHW.shape[-2:]
        self.rectangle = self.predictor(x_BCHW)
        if self.moments:
            self.rectangle = moments_rectangle(self.rectangle, factor=self.init_size * math.sqrt(3), rotate=self.rotate)
        sharpness = self.sharpness if self.log_gain is None else self.sharpness * self.log_gain.exp()
        self.map = rectangle_map(self.rectangle, H, W, sharpness, self.profile)
        self.penalty = self.area_weight * self.map.mean() if self.area_weight else None
        return x_BCHW * self.map.to(x_BCHW.dtype)
