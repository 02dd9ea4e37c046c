"""Gated attention pooling: a weighted mean over the map in the place of the plain mean."""
# B batch, C channels, H height, W width, L hidden units

import torch
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape


class GatedAttentionPool(nn.Module):
    """z = sum_i a_i h_i over the positions of a map; put in the place of `pool`.

        a = softmax_i( w^T (tanh(V h_i) * sigmoid(U h_i)) ),    V, U: (L, C) with bias, w: (L,)

    Gated attention pooling of multiple-instance learning (Ilse et al., arXiv 1802.04712). Our reading of "Deep multiple
    instance learning with spatial attention" (Li et al., ICPR 2020), whose bags of images become one image here: its positions are the
    instances. Established: the equation. Ours: biases in V and U, as in the released code as we remember it; w has none, as softmax would
    not see it. With w = 0 it is the plain mean. The order of the positions does not matter.

    shape: (C, H, W); x: (B, C, H, W) -> z (B, C), within the range of each channel. hidden: L. gated: False leaves sigmoid(U h) out, the
    paper's plain form. `.map`: a, (B, 1, H, W) of the last forward, >= 0 with sum 1, in fp32 or better.
    Raises ValueError for another place and hidden < 1.
    """

    def __init__(self, shape: tuple[int, ...], *, hidden: int = 128, gated: bool = True):
        super().__init__()
        check_shape(shape, "CHW", what="gated attention pooling", hint="it stands in the place of pool")
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {hidden}")
        self.content = nn.Conv2d(shape[0], hidden, 1)
        self.gate = nn.Conv2d(shape[0], hidden, 1) if gated else None
        self.score = nn.Conv2d(hidden, 1, 1, bias=False)
        self.map: Tensor | None = None

    def forward(self, x_BCHW: Tensor) -> Tensor:
        u_BLHW = self.content(x_BCHW).tanh()
        if self.gate is not None:
            u_BLHW = u_BLHW * self.gate(x_BCHW).sigmoid()
        scores_B1HW = self.score(u_BLHW)
        with torch.autocast(x_BCHW.device.type, enabled=False):
            scores_B1HW = scores_B1HW.to(torch.promote_types(scores_B1HW.dtype, torch.float32))
            self.map = scores_B1HW.flatten(2).softmax(2).view_as(scores_B1HW)
            return (x_BCHW.to(self.map.dtype) * self.map).sum((2, 3)).to(x_BCHW.dtype)

    def __getstate__(self):  # a copy takes the weights, not the graph of the last batch (which cannot be copied)
        return {**super().__getstate__(), "map": None}
