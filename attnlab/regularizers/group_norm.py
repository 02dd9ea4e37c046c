"""Group norm in the place of batch norm: normalisation without batch statistics."""
# C channels

from torch import nn

from attnlab.placement.shapes import ANY, check_shape
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
        check_shape(shape, ANY, what="group_norm")
        super().__init__(max(n for n in range(1, min(groups, shape[0]) + 1) if shape[0] % n == 0), shape[0], eps=eps)
        take_over(self, host)
