"""Ensemble: several trained networks as one.   Legend: M members, B batch, C channels, H height, W width, D features, K classes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attnlab.network import Output
from attnlab.placement.hooks import Placed


class Ensemble(nn.Module):
    """Deep ensemble (Lakshminarayanan et al., 1612.01474): the members' mean probability, as one network gives its own.

    logits_BK = log( 1/M sum_m softmax(z_m(x)) ),  features_BD = the members' features side by side

    So softmax(logits) is the mixture, and whatever reads an `Output` works on it unchanged: accuracy, NLL, calibration, OOD heads.
    `members` of the Output are the members' own. Logits
    are float64 (float32 on a device without), features None if any member has none, fc and target None: there is no final layer that
    makes these logits of these features, so heads that need it (vim, react) refuse. The logits are normalised: the energy is 0 for every
    input, which that head refuses, and the maximum logit is the log of MSP. The order of members changes nothing but that of the features.

    Args:
        members: networks `x_BCHW -> Output` over the same classes, on one device. Attention maps stay with the
            member that has them: `placed` is empty.

    Raises ValueError: no member; logits that disagree in shape.
    Differs from the paper in: members are whatever runs are given; nothing is trained here, and there is no adversarial training.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError("an ensemble needs at least one member")
        self.members = nn.ModuleList(members)
        self.placed = Placed()

    def forward(self, x: Tensor, target: Tensor | None = None) -> Output:
        outs = [member(x) for member in self.members]
        if len({out.logits.shape for out in outs}) > 1:
            raise ValueError(f"members disagree on the classes: logits of {', '.join(str(tuple(out.logits.shape)) for out in outs)}")
        logits_BK = mixture([out.logits for out in outs])
        features = [out.features for out in outs]
        side_by_side = None if any(one is None for one in features) else torch.cat([one.flatten(1) for one in features], 1)
        return Output(logits_BK, side_by_side, None, members=tuple(outs))


def mixture(logits: Sequence[Tensor]) -> Tensor:
    """``log( 1/M sum_m softmax(z_m) )`` (B, K) of the members' logits, in float64 where the device has it."""
    dtype = torch.float32 if logits[0].device.type == "mps" else torch.float64  # a confident member's doubt is below fp32's resolution
    log_p_MBK = torch.stack([z_BK.to(dtype).log_softmax(1) for z_BK in logits])
    return log_p_MBK.logsumexp(0) - math.log(len(logits))


class Renormalised(nn.Module):
    """`network`, which learned from inputs normalised by `learned` (mean and std a channel), on inputs normalised by `given`."""

    def __init__(
        self, network: nn.Module, *, given: tuple[Sequence[float], Sequence[float]], learned: tuple[Sequence[float], Sequence[float]]
    ) -> None:
        super().__init__()
        self.network = network
        (mean_C, std_C), (own_mean_C, own_std_C) = (torch.tensor(moments, dtype=torch.float64) for moments in (given, learned))
        self.register_buffer("scale_C", (std_C / own_std_C).float())
        self.register_buffer("bias_C", ((mean_C - own_mean_C) / own_std_C).float())

    @property
    def fc(self) -> nn.Module | None:
        return getattr(self.network, "fc", None)

    def forward(self, x: Tensor, target: Tensor | None = None) -> Output:
        channels = (-1, *[1] * (x.ndim - 2))
        return self.network(x * self.scale_C.view(channels) + self.bias_C.view(channels), target)
