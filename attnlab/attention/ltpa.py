# B batch, C channels of a tap, N = H W its positions, D the global vector, K classes, S taps
"""Learn To Pay Attention: classify an image by what attention gathers from several depths of the network."""

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.scale, None


class GradScale(nn.Module):
    """Gives x as it is; multiplies the gradient that comes back by `scale`. At a tap, 0.5 averages the two branches that meet there."""

    def __init__(self, shape: tuple[int, ...] | None = None, *, scale: float = 0.5) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return _Scale.apply(x, self.scale)

    def extra_repr(self) -> str:
        return f"scale={self.scale}"


class AttentionUnit(nn.Module):
    """One tap: forward(l_BCHW, g_BD) -> (gathered_BC, a_B1HW), a summing to 1 over the map."""

    def __init__(self, channels: int, dim: int, *, compatibility: str, match: str, dropout: float) -> None:
        super().__init__()
        self.match_l: nn.Module = nn.Identity()
        self.match_g: nn.Module = nn.Identity()
        self.channels = channels
        if channels != dim:
            parts = [nn.BatchNorm1d(dim), nn.ReLU(), nn.Dropout(dropout)]
            if match == "g_down":
                parts.append(nn.Linear(dim, channels))
            else:
                self.match_l, self.channels = _msr(nn.Conv2d(channels, dim, 1)), dim
            self.match_g = nn.Sequential(*parts)
        self.score = _msr(nn.Conv2d(self.channels, 1, 1)) if compatibility == "pc" else None

    def forward(self, l_BCHW: Tensor, g_BD: Tensor) -> tuple[Tensor, Tensor]:
        l_BCN = self.match_l(l_BCHW).flatten(2)
        g_BC = self.match_g(g_BD)
        with torch.autocast(l_BCN.device.type, enabled=False):
            dtype = torch.promote_types(l_BCN.dtype, torch.float32)
            l_BCN, g_BC = l_BCN.to(dtype), g_BC.to(dtype)
            if self.score is None:
                c_BN = torch.einsum("bcn,bc->bn", l_BCN, g_BC)
            else:  # <u, l + g> + b, without a copy of l
                u_1C, b_1 = self.score.weight.flatten(1).to(dtype), self.score.bias.to(dtype)
                c_BN = torch.einsum("bcn,c->bn", l_BCN, u_1C[0]) + F.linear(g_BC, u_1C, b_1)
            a_BN = c_BN.softmax(1)
            gathered_BC = torch.einsum("bn,bcn->bc", a_BN, l_BCN)
        return gathered_BC, a_BN.unflatten(1, l_BCHW.shape[2:])[:, None]


class LearnToPayAttention(nn.Module):
    """Learn To Pay Attention (Jetley et al., ICLR 2018, arXiv 1804.02391); put in the place of `fc`, with `reads: [tap1, ...]`.

    forward(g_BD, *l_BCHW) -> logits_BK. For each tap s, with u a 1x1 convolution to one channel:
      c_i = <u, l_i + g> + b  (compatibility "pc")  or  <l_i, g>  ("dp");   a = softmax(c) over the map;   g_s = sum_i a_i l_i.
    h = Dropout(ReLU(BatchNorm(.))), nothing with `hidden=False`.
      combine "concat": logits = Linear([h(g_1), ..., h(g_S)]).    "indep": one Linear per tap, then `indep_combine`:
        mean_prob    log of the mean of the taps' softmax (the paper): normalised, so that cross-entropy takes it as it is
        sum_logit    sum of the taps' logits (authors' att3 file)      sum_logprob  sum of their log-softmax (authors' att2 file)
    A tap of C != D channels is matched, by `match`:
      g_down: g -> Linear(D, C)(Dropout(ReLU(BatchNorm(g)))), as a rule;   l_up: l -> Conv1x1(C, D)(l) and g -> Dropout(ReLU(BatchNorm(g))).
    merge_grad: "avg" divides by S the gradient that reaches g from the S taps, as the authors' hand-written backward pass does; "sum" is
      plain backpropagation. They also halve, at each tap, the sum of its gradient and the trunk's. That touches the trunk's own gradient
      and cannot be done from here: add the placement `ltpa_merge` at the same taps, and the whole backward pass is theirs.
    Shapes: shape (D,), read_shapes [(C, H, W), ...] in the order of the taps. num_classes: of `host` (the displaced Linear) if not given.
    `.maps`: the taps' a_B1HW, each summing to 1. `.map`: the last tap's, divided by its largest value per image, so in [0, 1] for display.
    Two modules inside only name values: `attended` gives [g_1, ..., g_S] (B, sum C), and `features` [h(g_1), ..., h(g_S)], what the final
    Linear is given. A `Network` takes the latter as its features, for OOD distances, in the stead of the backbone's own, which are g.

    Two things follow from the equations. With "pc", <u, g> + b is the same at every position and the softmax cancels it: logits do not
    depend on g, whose branch (and u's bias, and the g half of a match) gets no gradient but weight decay: g is then untrained. And there
    is no final Linear at `fc` (`needs_fc` losses, ViM and ReAct do not apply; they find no `.weight`); mean_prob gives log-probabilities,
    whose energy is 0.

    Scores, softmax and sums run in float32. u ~ N(0, sqrt(2)), the authors' rule sqrt(2 / (k k C_out)) at C_out = 1: sharp maps at first.
    Differs from the authors' code in: BatchNorm scales start at 1 (Torch7: U(0, 1)); dropout is one number for all.
    Raises ValueError for a place that is not a vector, no reads, reads that are not maps, an unknown number of classes, dropout not in
    [0, 1), an unknown choice.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        read_shapes: list[tuple[int, ...]],
        host: nn.Module | None = None,
        num_classes: int | None = None,
        compatibility: Literal["pc", "dp"] = "pc",
        combine: Literal["concat", "indep"] = "concat",
        indep_combine: Literal["mean_prob", "sum_logit", "sum_logprob"] = "mean_prob",
        match: Literal["g_down", "l_up"] = "g_down",
        hidden: bool = True,
        dropout: float = 0.5,
        merge_grad: Literal["avg", "sum"] = "avg",
    ) -> None:
        super().__init__()
        num_classes = num_classes or getattr(host, "out_features", None)
        _check_choice("compatibility", compatibility, ("pc", "dp"))
        _check_choice("combine", combine, ("concat", "indep"))
        _check_choice("indep_combine", indep_combine, ("mean_prob", "sum_logit", "sum_logprob"))
        _check_choice("match", match, ("g_down", "l_up"))
        _check_choice("merge_grad", merge_grad, ("avg", "sum"))
        check_shape(shape, "D", what="learn to pay attention", hint="use `at: fc` with `how: replace`")
        if not read_shapes or any(len(read) != 3 for read in read_shapes):
            raise ValueError(f"`reads` must name places with maps (C, H, W), got shapes {[tuple(read) for read in read_shapes]}")
        if num_classes is None:
            raise ValueError("num_classes is needed where the displaced module is no Linear")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        options = dict(compatibility=compatibility, match=match, dropout=dropout)
        self.units = nn.ModuleList(AttentionUnit(read[0], shape[0], **options) for read in read_shapes)
        self.sizes = [unit.channels for unit in self.units]
        self.attended, self.features = nn.Identity(), nn.Identity()
        self.hidden = nn.ModuleList(
            nn.Sequential(nn.BatchNorm1d(size), nn.ReLU(), nn.Dropout(dropout)) if hidden else nn.Identity() for size in self.sizes
        )
        widths = [sum(self.sizes)] if combine == "concat" else self.sizes
        self.classifiers = nn.ModuleList(nn.Linear(width, num_classes) for width in widths)
        self.merge = GradScale(scale=1 / len(self.units)) if merge_grad == "avg" else nn.Identity()
        self.combine, self.indep_combine = combine, indep_combine
        self.map: Tensor | None = None
        self.maps: list[Tensor] = []

    def forward(self, g_BD: Tensor, *taps_BCHW: Tensor) -> Tensor:
        g_BD = self.merge(g_BD)
        found = [unit(l_BCHW, g_BD) for unit, l_BCHW in zip(self.units, taps_BCHW, strict=True)]
        self.maps = [map_B1HW for _, map_B1HW in found]
        self.map = self.maps[-1] / self.maps[-1].amax((2, 3), keepdim=True)
        attended = self.attended(torch.cat([gathered_BC for gathered_BC, _ in found], 1))
        attended = attended.to(self.classifiers[0].weight.dtype)
        hidden = torch.cat([h(gathered_BC) for h, gathered_BC in zip(self.hidden, attended.split(self.sizes, 1))], 1)
        features = self.features(hidden)
        if self.combine == "concat":
            return self.classifiers[0](features)
        z_SBK = torch.stack([classifier(h_BC) for classifier, h_BC in zip(self.classifiers, features.split(self.sizes, 1))])
        if self.indep_combine == "sum_logit":
            return z_SBK.sum(0)
        with torch.autocast(z_SBK.device.type, enabled=False):
            logp_SBK = z_SBK.to(torch.promote_types(z_SBK.dtype, torch.float32)).log_softmax(2)
            if self.indep_combine == "sum_logprob":
                return logp_SBK.sum(0)
            return logp_SBK.logsumexp(0) - math.log(len(self.units))


def _msr(conv: nn.Conv2d) -> nn.Conv2d:
    nn.init.normal_(conv.weight, std=math.sqrt(2 / conv.out_channels))
    nn.init.zeros_(conv.bias)
    return conv


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
