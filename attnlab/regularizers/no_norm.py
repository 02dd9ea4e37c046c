"""No norm: what a method that does without norms is placed beside."""
# B batch, C channels

import torch
from torch import Tensor, nn

from attnlab.placement.shapes import ANY, check_shape
from attnlab.regularizers.norm_host import check_norm, take_over


class NoNorm(nn.Module):
    """Nothing in the place of a norm but its bias:   y = x + beta,   beta a learnt value a channel.

    For methods that are to do without norms (`regularizer=[weight_align,no_norm]`), and as the control of those that are not.

    Args:
        shape: (C, ...). host: the norm that is replaced, whose beta stays; both filled in by the placement.

    Shapes: x (B, C, ...) -> same. Raises ValueError for a host that is no norm or holds an activation.
    """

    def __init__(self, shape: tuple[int, ...], *, host: nn.Module | None = None) -> None:
        super().__init__()
        check_shape(shape, ANY, what="no_norm")
        check_norm(host, name="no_norm")
        self.bias = nn.Parameter(torch.zeros(shape[0]))
        take_over(self, host)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.view(-1, *[1] * (x.ndim - 2)).to(x.dtype)
