"""Bipolar morphological convolution: sums become maxima, products become sums of logarithms."""
# B batch, C channels, H height, W width, O output channels, P = C k k values of a patch, L positions of the output

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.convolutions.host import Geometry, geometry_of, output_size

CHUNK = 2**22  # values at once while the winners are searched


def log_weights(weight_OIkk: Tensor, *, floor: float = 1e-6) -> tuple[Tensor, Tensor]:
    """A convolution's weights as V1 = log max(w, floor) and V2 = log max(-w, floor): how a trained convolution is converted."""
    return weight_OIkk.clamp_min(floor).log(), (-weight_OIkk).clamp_min(floor).log()


def max_plus(u_BLP: Tensor, v_OP: Tensor) -> Tensor:
    """M(u, V) = exp(max_p (u_p + V_op)): (B, L, O). The gradient goes to the winning p alone."""
    parts = v_OP.detach().split(max(CHUNK // u_BLP.numel(), 1))  # some output channels at a time, as all L O P sums would not fit
    if not torch.is_grad_enabled():
        return torch.cat([(u_BLP[:, :, None] + part_oP).amax(3) for part_oP in parts], 2).exp()
    with torch.no_grad():
        winner_BLO = torch.cat([(u_BLP[:, :, None] + part_oP).argmax(3) for part_oP in parts], 2)
    v_BLO = v_OP.mT.gather(0, winner_BLO.flatten(0, 1)).view_as(winner_BLO)
    return (u_BLP.gather(2, winner_BLO) + v_BLO).exp()


def bipolar_conv2d(
    x_BCHW: Tensor, v1_OIkk: Tensor, v2_OIkk: Tensor, bias_O: Tensor | None, *, geometry: Geometry, delta: float = 0.1
) -> Tensor:
    """y = M(x+, V1) - M(x+, V2) - M(x-, V1) + M(x-, V2) + b over patches, x+ = log max(x, delta), x- = log max(-x, delta).

    Padding is zeros before the logarithm, so a padded value counts as delta.
    """
    patches_BLP = F.unfold(x_BCHW, **geometry).mT.contiguous()
    plus_BLP, minus_BLP = patches_BLP.clamp_min(delta).log(), (-patches_BLP).clamp_min(delta).log()
    v1_OP, v2_OP = v1_OIkk.flatten(1), v2_OIkk.flatten(1)
    y_BLO = max_plus(plus_BLP, v1_OP) - max_plus(plus_BLP, v2_OP) - max_plus(minus_BLP, v1_OP) + max_plus(minus_BLP, v2_OP)
    if bias_O is not None:
        y_BLO = y_BLO + bias_O
    return y_BLO.mT.unflatten(2, output_size(*x_BCHW.shape[-2:], geometry))  # channels_last


class BipolarConv2d(nn.Module):
    """Bipolar morphological convolution (BM-ResNet: Limonova et al., arXiv 2009.07190) in the stead of a Conv2d and converted from it.

    A sum over a patch is approximated by its largest addend, for the four pairs of signs of input and weight (`bipolar_conv2d`). Hardware
    then needs no multipliers; on a GPU it is slower. The parameters are the logarithms v1, v2 (O, I, k, k) and the bias; at the start
    V1 = log max(w, 1e-6), V2 = log max(-w, 1e-6) of the displaced convolution. Weight decay on logarithms pulls weights to 1, not to 0:
    optimizer.groups.bipolar.weight_decay=0.

    Conversion of a trained network: place it there, `place(network.backbone, {"bipolar": {"at": "layer1.*.conv*", "how": "replace",
    "module": BipolarConv2d}}, shape=...)`, and train on; the paper goes layer by layer. Exact where one value of a patch is above delta in
    size and the others are 0 with delta -> 0.

    shape: (C, H, W) of the input; host: the displaced Conv2d, without groups. delta: > 0, smaller inputs count as delta (.1 in the
    authors' training). Runs in fp32. Memory: 4 B O H W values and the patches, B C k k H W. Raises ValueError for another host or delta.
    """

    def __init__(self, shape: tuple[int, ...], *, host: nn.Module, delta: float = 0.1):
        super().__init__()
        if not 0 < delta < float("inf"):
            raise ValueError(f"delta must be above 0, got {delta}")
        self.geometry = geometry_of(host, who="a bipolar convolution")
        self.delta = delta
        v1_OIkk, v2_OIkk = log_weights(host.weight.detach())
        self.v1, self.v2 = nn.Parameter(v1_OIkk), nn.Parameter(v2_OIkk)
        self.bias = None if host.bias is None else nn.Parameter(host.bias.detach().clone())

    def forward(self, x_BCHW: Tensor) -> Tensor:
        with torch.autocast(x_BCHW.device.type, enabled=False):
            x_BCHW = x_BCHW.to(torch.promote_types(x_BCHW.dtype, self.v1.dtype))
            return bipolar_conv2d(x_BCHW, self.v1, self.v2, self.bias, geometry=self.geometry, delta=self.delta)

    def extra_repr(self) -> str:
        return f"{', '.join(map(str, self.v1.shape))}, delta={self.delta}"
