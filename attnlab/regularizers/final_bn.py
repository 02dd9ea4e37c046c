"""Final batch norm: normalise the logits (or the features) of an imbalanced problem."""
# B batch, K classes

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.placement.shapes import check_shape


class FinalBatchNorm(nn.BatchNorm1d):
    """Batch norm just before the output (Kocaman, Shir and Baeck, arXiv 2011.06319), by torch.nn.BatchNorm1d.

        z' = gamma (z - m) / sqrt(v + eps) + beta,   m and v over the batch in training, running ones in eval

    "Before the output layer" of the abstract is read as fastai's `bn_final`: on the logits, momentum 0.01 (`at: fc`). The other reading is
    the feature (`at: features`, momentum 0.1). The claim is about rare classes, measured by F1: |z'| is bounded by gamma, so confidence and
    calibration change with it, and the loss may rise while F1 does.

    Args:
        shape: (K,) of the place, filled in by the placement.
        momentum: weight of the newest batch in the running statistics, in (0, 1].
        eps: > 0.
        eval_stats: `running`: those of the training stream, imbalanced as it was. `batch`: the test batch's own (an ablation: how much of
            the effect is that shift?); an image's logits then depend on the other images of its batch.

    Shapes: z (B, K) -> same. Raises ValueError for values out of range or a place without vectors, and for one image a batch in training.
    Under DDP every process has the statistics of its own shard.
    """

    def __init__(
        self, shape: tuple[int, ...], *, momentum: float = 0.01, eps: float = 1e-5, eval_stats: Literal["running", "batch"] = "running"
    ) -> None:
        check_shape(shape, "D", what="final_bn", hint="it stands after fc or features")
        if not 0 < momentum <= 1:
            raise ValueError(f"momentum must be in (0, 1], got {momentum}")
        if not eps > 0:
            raise ValueError(f"eps must be above 0, got {eps}")
        if eval_stats not in ("running", "batch"):
            raise ValueError(f"eval_stats must be running or batch, got {eval_stats!r}")
        super().__init__(shape[0], eps=eps, momentum=momentum)
        self.eval_stats = eval_stats

    def forward(self, z_BK: Tensor) -> Tensor:
        if self.training or self.eval_stats == "running":
            return super().forward(z_BK)
        return F.batch_norm(z_BK, None, None, self.weight, self.bias, training=True, eps=self.eps)
