"""Weighted regions: a head that scores the regions of a map, classifies each, and joins them with the whole."""
# B batch, C channels, H height, W width, R = grid * grid regions, D features, K classes

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.losses.auxiliary import auxiliary_cross_entropy
from attnlab.placement.shapes import check_shape
from attnlab.regularizers.mixup import soft_labels


def rank_loss(s_BR: Tensor, p_BR: Tensor) -> Tensor:
    """Mean over images of sum over pairs p_r < p_q of max(0, s_r - s_q + 1), divided by the number of pairs R (R - 1) / 2."""
    wrong_BRR = (s_BR[:, :, None] - s_BR[:, None] + 1).clamp_min(0) * (p_BR[:, :, None] < p_BR[:, None])
    return wrong_BRR.sum((1, 2)).mean() / max(s_BR.shape[1] * (s_BR.shape[1] - 1) / 2, 1)


class WeightedRegions(nn.Module):
    """Logits from the image and from its regions, weighed by a learned score; put in the place of `fc`, `reads: [layer4, target]`.

        phi_r = mean of the map over region r of a grid;   s = mean over each region of conv1x1(ReLU(conv3x3(map)));   a = softmax_r(s)
        logits = Linear([g; sum_r a_r phi_r]),   g: the pooled features that `fc` is given
    In training, with z_r = Linear'(phi_r), shared by the regions, and p_r its probability of the image's class, without gradient,
        `.penalty` = regions CE(z_r, y) + rank sum_{p_r < p_q} max(0, s_r - s_q + 1) / pairs + error mean_r (sigmoid(s_r) - p_r)^2
    so that regions which tell the class get high scores, with no label of parts.

    Our reading of the weighted region network (Zhang et al., ICPR 2020), known from its abstract. Established: a weight network scores
    regions, learned by a rank loss and a mean squared error; a region network classifies; local and global are joined. Ours: the grid on
    one map in the place of crops, all layers, the division by the number of pairs, the weights of the terms.

    shape: (D,); read_shapes: [(C, H, W)]. grid: regions a side. hidden: channels of the scoring network. Labels may be classes or
    probabilities. `.map`: a, (B, 1, grid, grid) of the last forward. Losses and OOD heads that need `fc` do not apply.
    Raises ValueError for other places, grid < 1 or above the map's sides, hidden < 1, negative weights.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        read_shapes: Sequence[tuple[int, ...]],
        num_classes: int,
        grid: int = 2,
        hidden: int = 64,
        regions: float = 1.0,
        rank: float = 1.0,
        error: float = 1.0,
    ):
        super().__init__()
        check_shape(shape, "D", what="a head of weighted regions", hint="it stands in the place of fc")
        if len(read_shapes) != 1 or len(read_shapes[0]) != 3:
            raise ValueError(f"reads must be one place with a map and target, as [layer4, target]; got shapes {list(read_shapes)}")
        channels, height, width = read_shapes[0]
        if not 1 <= grid <= min(height, width):
            raise ValueError(f"grid must be between 1 and the sides of the {height}x{width} map, got {grid}")
        if hidden < 1:
            raise ValueError(f"hidden must be at least 1, got {hidden}")
        for name, value in {"regions": regions, "rank": rank, "error": error}.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name} must be at least 0, got {value}")
        self.grid, self.num_classes = grid, num_classes
        self.regions, self.rank, self.error = regions, rank, error
        self.score = nn.Sequential(nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU(), nn.Conv2d(hidden, 1, 1))
        self.classify_region = nn.Linear(channels, num_classes)
        self.classify = nn.Linear(shape[0] + channels, num_classes)
        self.map: Tensor | None = None
        self.penalty: Tensor | None = None

    def forward(self, g_BD: Tensor, x_BCHW: Tensor, target: Tensor | None) -> Tensor:
        phi_BRC = F.adaptive_avg_pool2d(x_BCHW, self.grid).flatten(2).mT
        s_BR = F.adaptive_avg_pool2d(self.score(x_BCHW), self.grid).flatten(1)
        a_BR = s_BR.softmax(1)
        self.map = a_BR.view(-1, 1, self.grid, self.grid)
        self.penalty = None
        if target is not None:
            self.penalty = self.losses(self.classify_region(phi_BRC), s_BR, target)
        return self.classify(torch.cat([g_BD, (a_BR[..., None] * phi_BRC).sum(1).to(g_BD.dtype)], 1))

    def losses(self, z_BRK: Tensor, s_BR: Tensor, target: Tensor) -> Tensor:
        """The penalty of regions' logits and scores."""
        with torch.autocast(s_BR.device.type, enabled=False):
            dtype = torch.promote_types(s_BR.dtype, torch.float32)
            z_BRK, s_BR = z_BRK.to(dtype), s_BR.to(dtype)
            soft_BK = soft_labels(target, num_classes=self.num_classes).to(dtype)
            soft_BK = soft_BK.repeat(len(s_BR) // len(soft_BK), 1)  # copies of the images (noisy_copies)
            p_BR = (z_BRK.detach().softmax(2) * soft_BK[:, None]).sum(2)
            by_region = auxiliary_cross_entropy(z_BRK.transpose(0, 1).flatten(0, 1), target)  # rows: all images of a region, then the next
            return self.regions * by_region + self.rank * rank_loss(s_BR, p_BR) + self.error * F.mse_loss(s_BR.sigmoid(), p_BR)

    def __getstate__(self):  # a copy takes the weights, not the graph of the last batch (which cannot be copied)
        return {**super().__getstate__(), "map": None, "penalty": None}
