"""CutMix: paste a rectangle of another image and mix the labels by area."""
# B batch, C channels, H height, W width, K classes

import torch
from torch import Tensor, nn

from attnlab.regularizers.boxes import box_mask, check_image_shape
from attnlab.regularizers.mixup import check_labels, draw_beta, soft_labels


class CutMix(nn.Module):
    """Paste the same rectangle of a partner image into every image (Yun et al., arXiv 1905.04899).

        lam ~ Beta(alpha, alpha), one rectangle a batch: height floor(H sqrt(1 - lam)), width floor(W sqrt(1 - lam)), centre uniform
        over the pixels, clipped at the borders;  x' = x[p] inside, x outside
        lam' = share of the image outside the clipped rectangle;  t' = lam' t + (1 - lam') t[p]
        unchanged in eval and where there are no labels

    Place it after `input` with `reads: [target]` and `writes: [target]`. The loss must accept soft targets.

    Args:
        shape: (C, H, W).
        num_classes: K, filled in by the placement.
        alpha: > 0; the paper takes 1 (lam uniform).
        prob: probability of cutting in a batch, in [0, 1]; the authors take 0.5 on CIFAR and 1 on ImageNet.

    Shapes: x (B, C, H, W), target (B,) int64, (B, K) soft or None -> x' as x, t' (B, K) float32; soft targets of an earlier mixer are
    mixed.
    Raises ValueError for values out of range, a place without (C, H, W), or soft targets of another K.
    Differs from the official code in: nothing known; as there, half sides are rounded down, and lam is corrected to the exact pasted area.
    """

    takes_label_sets = True

    def __init__(self, shape: tuple[int, ...], *, num_classes: int, alpha: float = 1.0, prob: float = 0.5):
        super().__init__()
        check_image_shape(shape, name="cutmix")
        if not alpha > 0:
            raise ValueError(f"alpha must be above 0, got {alpha}")
        if not 0 <= prob <= 1:
            raise ValueError(f"prob must be in [0, 1], got {prob}")
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes = num_classes
        self.alpha = alpha
        self.prob = prob

    def forward(self, x_BCHW: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if not self.training or target is None:
            return x_BCHW, target
        check_labels(x_BCHW, target)
        B, _, H, W = x_BCHW.shape
        device = x_BCHW.device
        partner_B = torch.randperm(B, device=device)
        side = (1 - draw_beta(self.alpha, device)).sqrt()
        side = torch.where(torch.rand((), device=device) < self.prob, side, 0.0)
        half_h, half_w = (H * side).floor() // 2, (W * side).floor() // 2
        cy, cx = torch.randint(H, (1,), device=device), torch.randint(W, (1,), device=device)
        box_11HW = box_mask(cy - half_h, cx - half_w, cy + half_h, cx + half_w, height=H, width=W)
        lam = 1 - box_11HW.float().mean()
        soft_BK = soft_labels(target, num_classes=self.num_classes)
        return torch.where(box_11HW, x_BCHW[partner_B], x_BCHW), torch.lerp(soft_BK[partner_B], soft_BK, lam)

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, prob={self.prob}, num_classes={self.num_classes}"
