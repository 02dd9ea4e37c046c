"""Group norm and no norm: what a batch norm can be replaced by, so that a method is seen without batch statistics."""
# B batch, C channels

import torch
from torch import Tensor, nn

from attnlab.regularizers.norm_host import check_norm, take_over


class GroupNorm(nn.GroupNorm):
    """Group normalisation in the place of another norm (Wu and He, arXiv 1803.08494), by torch.nn.GroupNorm.

        y = gamma (x - m) / sqrt(v + eps) + beta,   m and v over the channels of a group and the positions of one image

    Args:
        shape: (C, H, W). host: the norm that is replaced, whose gamma and beta stay; both filled in by the placement.
        groups: at most so many groups: the largest divisor of C up to it; 32 in the paper.
        eps: > 0.

    Shapes: x (B, C, H, W) -> same. Raises ValueError for groups below 1 or a host that is no norm or holds an activation.
    """

    def __init__(self, shape: tuple[int, ...], *, groups: int = 32, eps: float = 1e-5, host: nn.Module | None = None) -> None:
        check_norm(host, name="group_norm")
        if groups < 1:
            raise ValueError(f"groups must be at least 1, got {groups}")
        super().__init__(max(n for n in range(1, min(groups, shape[0]) + 1) if shape[0] % n == 0), shape[0], eps=eps)
        take_over(self, host)


class NoNorm(nn.Module):
    """Nothing in the place of a norm but its bias:   y = x + beta,   beta a learnt value a channel.

    For methods that are to do without norms (`regularizer=[weight_align,no_norm]`), and as the control of those that are not.

    Args:
        shape: (C, ...). host: the norm that is replaced, whose beta stays; both filled in by the placement.

    Shapes: x (B, C, ...) -> same. Raises ValueError for a host that is no norm or holds an activation.
    """

    def __init__(self, shape: tuple[int, ...], *, host: nn.Module | None = None) -> None:
        super().__init__()
        check_norm(host, name="no_norm")
        self.bias = nn.Parameter(torch.zeros(shape[0]))
        take_over(self, host)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.view(-1, *[1] * (x.ndim - 2)).to(x.dtype)
