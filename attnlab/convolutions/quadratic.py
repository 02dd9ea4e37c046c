"""Quadratic convolution: every output is a quadratic form of its patch, full or of low rank."""
# B batch, C channels, H height, W width, O output channels, P = C k k values of a patch, L positions of the output, R rank

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.convolutions.host import Geometry, geometry_of, output_size


def quadratic_conv2d(x_BCHW: Tensor, q_OQQ: Tensor, *, geometry: Geometry) -> Tensor:
    """y_o = p'^T Q_o p' with p' = [p; 1], p the patch in the order of F.unfold (channel, row, column) and Q = P + 1. Zero padding."""
    patches_BLP = F.unfold(x_BCHW, **geometry).mT
    patches_BLQ = F.pad(patches_BLP, (0, 1), value=1.0)
    y_BLO = torch.einsum("blp,opq,blq->blo", patches_BLQ, q_OQQ, patches_BLQ)
    return y_BLO.mT.unflatten(2, output_size(*x_BCHW.shape[-2:], geometry))  # channels_last


class QuadraticConv2d(nn.Module):
    """Quadratic convolution (CQNN: Mantini and Shah, ICPR 2020) in the stead of a Conv2d.

    full      y_o = sign * p'^T Q_o p', p' = [p; 1], Q (O, P+1, P+1) from Glorot's uniform rule: quadratic, linear and constant part in one.
              sign is -1 with `negate`, the authors' default. As in their code Q is not kept symmetric; only (Q + Q^T) / 2 matters.
    low_rank  y_o = sum_r s_or (a_or * x)^2 + b_o * x + c_o: R convolutions per output channel, squared, beside the displaced one (b, c),
              which is kept with its weights. Ours: s starts at 0, so the layer starts as the displaced convolution; a has variance 1 / P.

    The full form has O (C k k + 1)^2 parameters: 128 million in the paper's ResNet-20 instead of .27, so it is no comparison at equal
    parameters. The low-rank form has (R + 1) as many weights as the convolution.

    shape: (C, H, W) of the input; host: the displaced Conv2d, without groups. rank: R >= 1. The full form runs in fp32.
    Raises ValueError for another host, form or rank.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        host: nn.Module,
        form: Literal["low_rank", "full"] = "low_rank",
        rank: int = 1,
        negate: bool = True,
    ):
        super().__init__()
        self.geometry = geometry_of(host, who="a quadratic convolution")
        if form not in ("low_rank", "full"):
            raise ValueError(f"form must be low_rank or full, got {form!r}")
        if rank < 1:
            raise ValueError(f"rank must be at least 1, got {rank}")
        self.form, self.negate = form, negate
        channels, size = host.out_channels, host.weight[0].numel() + 1
        if form == "full":
            # Keras' Glorot rule of a (O, Q, Q) tensor: its last two dimensions are in and out, the first counts as a receptive field
            bound = math.sqrt(6 / (channels * 2 * size))
            self.q = nn.Parameter(torch.empty(channels, size, size))
            nn.init.uniform_(self.q, -bound, bound)
        else:
            self.linear = host
            self.factors = nn.Conv2d(shape[0], channels * rank, bias=False, **self.geometry)
            nn.init.kaiming_normal_(self.factors.weight, nonlinearity="linear")
            self.scale = nn.Parameter(torch.zeros(channels, rank))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if self.form == "low_rank":
            squares_BORHW = self.factors(x_BCHW).square().unflatten(1, self.scale.shape)
            return self.linear(x_BCHW) + (squares_BORHW * self.scale.to(squares_BORHW.dtype)[..., None, None]).sum(2)
        with torch.autocast(x_BCHW.device.type, enabled=False):
            y_BOHW = quadratic_conv2d(x_BCHW.to(torch.promote_types(x_BCHW.dtype, self.q.dtype)), self.q, geometry=self.geometry)
            return -y_BOHW if self.negate else y_BOHW
