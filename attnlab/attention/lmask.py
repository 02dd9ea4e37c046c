"""LMask: one learnt mask over the positions of a map, the same for all images."""
# B batch, C channels, H height, W width, K classes, P positions

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape
from attnlab.regularizers.mixup import soft_labels


class LMask(nn.Module):
    """Our reading of LMask ("Less yet robust: crucial region selection for scene recognition", Zhang et al., arXiv 2409.14741).

        y = x M,   M = sigmoid(P) in [0, 1]^(H x W), a parameter: the same for all images and channels
        penalty = sparse mean_p M_p + shared mean_p M_p conf_p
        conf_p = H(q_p) / log K,   q_kp = s_kp / sum_k s_kp,   s_kp = mean over the batch's images of class k of mean_c relu(x)_cp

    so that few positions are kept, and those that are active for several classes alike are kept less.

    Established (page and abstract): the static mask on the encoder's last map; a term that makes it sparse; a further constraint on regions
    that matter to several categories. Ours: the formulas, the sigmoid, both weights, that a region matters to a class by its activity (the
    labels are asked for, not the classifier's weights), that this activity has no gradient: conf says where the mask should be low, and
    does not change the features.

    Args:
        shape: (C, H, W) of the place; the last map before the pooling. num_classes: K. Both filled in by the placement.
        sparse, shared: weights of the terms, >= 0.
        start: M at first, in (0, 1); 0.88 = sigmoid(2). Near 0 the gradient of P vanishes.

    Attributes: map: (B, 1, H, W), M. penalty: in training, where a weight is above 0, else None. statistics: the mean of M.
    Shapes: x (B, C, H, W) -> same, same dtype and memory format; on a map of another size M is interpolated. target: (B,) labels (-1: of no
    class), (B, K) soft labels, or None: the second term is left out. Copies of the images (noisy_copies) have their originals' labels.
    Raises ValueError for values out of range or a place without (C, H, W).
    """

    def __init__(
        self, shape: tuple[int, ...], *, num_classes: int, sparse: float = 1e-3, shared: float = 1e-3, start: float = 0.88
    ) -> None:
        super().__init__()
        check_shape(shape, "CHW", what="lmask")
        if not (sparse >= 0 and shared >= 0):
            raise ValueError(f"sparse and shared must be at least 0, got {sparse} and {shared}")
        if not 0 < start < 1:
            raise ValueError(f"start must be in (0, 1), got {start}")
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        self.num_classes, self.sparse, self.shared = num_classes, sparse, shared
        self.logit = nn.Parameter(torch.full((1, 1, *shape[1:]), math.log(start / (1 - start))))
        self.map: Tensor | None = None
        self.penalty: Tensor | None = None
        self.statistics: dict[str, Tensor] = {}

    def forward(self, x_BCHW: Tensor, target: Tensor | None = None) -> Tensor:
        mask_11HW = self.logit.sigmoid()
        if x_BCHW.shape[2:] != mask_11HW.shape[2:]:
            mask_11HW = F.interpolate(mask_11HW, x_BCHW.shape[2:], mode="bilinear", align_corners=False)
        self.map = mask_11HW.expand(len(x_BCHW), -1, -1, -1)
        self.penalty = None
        self.statistics = {"mean": mask_11HW.mean().detach()}
        if self.training and (self.sparse or self.shared):
            self.penalty = self.sparse * mask_11HW.mean()
            if self.shared and target is not None:
                confusion_HW = confusion(x_BCHW.detach(), soft_labels(target, num_classes=self.num_classes))
                self.penalty = self.penalty + self.shared * (mask_11HW * confusion_HW.to(mask_11HW.dtype)).mean()
        return x_BCHW * mask_11HW.to(x_BCHW.dtype)

    def extra_repr(self) -> str:
        return f"sparse={self.sparse}, shared={self.shared}"


def confusion(x_BCHW: Tensor, soft_BK: Tensor) -> Tensor:
    """(H, W) in [0, 1]: 1 where a position is as active for every class, 0 where it is so for one of them alone, or for none."""
    with torch.autocast(x_BCHW.device.type, enabled=False):
        active_BP = x_BCHW.relu().to(torch.promote_types(x_BCHW.dtype, torch.float32)).mean(1).flatten(1)
        soft_BK = soft_BK.to(active_BP.dtype).repeat(len(x_BCHW) // len(soft_BK), 1)
        score_KP = (soft_BK / soft_BK.sum(0).clamp(min=1e-6)).T @ active_BP
        q_KP = score_KP / score_KP.sum(0).clamp(min=1e-12)
        return (-torch.xlogy(q_KP, q_KP).sum(0) / math.log(soft_BK.shape[1])).view(x_BCHW.shape[2:])
