"""Dynamic multi-path block: thin residual paths that open or close for each image."""
# B batch, C channels, H height, W width, N paths, S hidden units, K classes

import torch
from torch import Tensor, nn

from attnlab.attention.dynamic_residual import keeps_shape
from attnlab.losses.auxiliary import auxiliary_cross_entropy
from attnlab.placement.shapes import check_shape


class DynamicMultiPath(nn.Module):
    """A residual block whose parallel paths are gated image by image, in the stead of a residual one.

        h = ReLU(W mean(x) + b);   l = W' h + b';   y = ReLU(x + sum_n g_n B_n(x)),   B_n: conv1x1, BN, ReLU, conv3x3, BN, ReLU, conv1x1, BN
        training:   s_n = sigmoid((l_n + logistic noise) / temperature);   g_n = [s_n > 1/2] forward, the gradient is that of s_n
        evaluation: g_n = [l_n > 0]
        `.penalty` in training = budget (mean g - target_share)^2 + category CE(Linear(h), labels)

    The two-way Gumbel softmax with straight-through gradient is, for a gate, the sigmoid with logistic noise. All paths cost the same, so
    the mean of g is the share of operations in use; nothing is skipped here, as a batch is computed whole: count operations, not time.

    Our reading of the dynamic multi-path network (DMNN: Su et al., arXiv 1902.10949), of which no code was found. Established: sub-blocks
    of a block gated per image by a controller that uses the object's category, with a term for the operations. Ours: the layers and
    weights, the temperature's linear fall from 1 to .5 over training (1 where the progress is not known), gates that start open (b' = 2).
    Left out: the controller's state of the block before, as a block does not see another's.

    shape: (C, H, W); x, y: (B, C, H, W). paths: N, each C / N channels wide (at least 1). hidden: S. target_share: in [0, 1]. budget,
    category: weights, >= 0. `.gates`: g (B, N) of the last forward; `.statistics`: open, its mean.
    Raises ValueError for another place, a `host` that changes the shape, sizes below 1, other values out of range.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        num_classes: int,
        host: nn.Module | None = None,
        paths: int = 3,
        hidden: int = 32,
        target_share: float = 0.6,
        budget: float = 1.0,
        category: float = 0.1,
    ):
        super().__init__()
        check_shape(shape, "CHW", what="a dynamic multi-path block")
        for name, value in {"paths": paths, "hidden": hidden}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= target_share <= 1:
            raise ValueError(f"target_share must be in [0, 1], got {target_share}")
        for name, value in {"budget": budget, "category": category}.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be at least 0, got {value}")
        if host is not None and not keeps_shape(host, shape):
            raise ValueError("a dynamic multi-path block keeps the shape, and the block here changes it; choose blocks inside a stage")
        self.target_share, self.budget, self.category = target_share, budget, category
        self.paths = nn.ModuleList(_path(shape[0], max(shape[0] // paths, 1)) for _ in range(paths))
        self.controller = nn.Sequential(nn.Linear(shape[0], hidden), nn.ReLU())
        self.gate = nn.Linear(hidden, paths)
        nn.init.constant_(self.gate.bias, 2.0)
        self.classify = nn.Linear(hidden, num_classes)
        self.relu = nn.ReLU()
        self.gates: Tensor | None = None
        self.penalty: Tensor | None = None
        self.statistics: dict[str, Tensor] = {}

    def forward(self, x_BCHW: Tensor, target: Tensor | None = None, progress: Tensor | None = None) -> Tensor:
        h_BS = self.controller(x_BCHW.mean((2, 3)))
        self.gates = gates_BN = self.draw(self.gate(h_BS), progress)
        self.statistics = {"open": gates_BN.detach().mean()}
        self.penalty = None
        if self.training:
            self.penalty = self.budget * (gates_BN.mean() - self.target_share) ** 2
            if target is not None:
                self.penalty = self.penalty + self.category * auxiliary_cross_entropy(self.classify(h_BS), target)
        paths = (g_B[:, None, None, None] * path(x_BCHW) for g_B, path in zip(gates_BN.to(x_BCHW.dtype).unbind(1), self.paths, strict=True))
        return self.relu(x_BCHW + sum(paths))

    def draw(self, logits_BN: Tensor, progress: Tensor | None) -> Tensor:
        """Gates, 0 or 1, in fp32 or better."""
        logits_BN = logits_BN.to(torch.promote_types(logits_BN.dtype, torch.float32))
        if not self.training:
            return (logits_BN > 0).to(logits_BN.dtype)
        temperature = 1.0 if progress is None else 1 - 0.5 * progress
        u_BN = torch.rand_like(logits_BN).clamp(1e-6, 1 - 1e-6)
        soft_BN = ((logits_BN + u_BN.logit()) / temperature).sigmoid()
        return (soft_BN > 0.5).to(soft_BN.dtype) + (soft_BN - soft_BN.detach())

    def __getstate__(self):  # a copy takes the weights, not the graph of the last batch (which cannot be copied)
        return {**super().__getstate__(), "gates": None, "penalty": None, "statistics": {}}


def _path(channels: int, width: int) -> nn.Sequential:
    parts = [
        *(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()),
        *(nn.Conv2d(width, channels, 1, bias=False), nn.BatchNorm2d(channels)),
    ]
    for part in parts:
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(*parts)
