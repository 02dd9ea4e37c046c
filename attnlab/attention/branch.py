"""Attention branch network: a second classifier on an inner feature map, whose evidence map weighs the features."""
# B batch, C channels, H height, W width, E channels of the branch, K classes

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from attnlab.backbones.resnet import BasicBlock, Bottleneck
from attnlab.losses.auxiliary import auxiliary_cross_entropy
from attnlab.placement.shapes import check_shape


class AttentionBranch(nn.Module):
    """y = x (1 + a): the attention branch of ABN (Fukui et al., arXiv 1812.10025), put after the stage before the last.

        h = ReLU(BN(conv1x1_{E->K}(BN(blocks(x)))))     `blocks`: residual blocks as those of the next stage, all with stride 1
        a = sigmoid(BN(conv3x3_{K->1}(h)))              the attention map, one for all channels
        z = mean over the map of conv1x1_{K->K}(h)      the branch's own logits

    In training `.penalty` = weight * cross-entropy(z, labels) is added to the loss of the network's own logits ("perception branch"), by
    which predictions are made. Labels may be class numbers or probabilities (mixup, cutmix at `input`). `.logits` (B, K) and `.map`
    (B, 1, H, W) in (0, 1) of the last forward are kept. Since 1 + a > 1, features are raised where there is evidence and never put out.

    shape: (C, H, W); x, y: (B, C, H, W). num_classes: K. blocks: residual blocks in the branch (the authors: as many as the next stage
    has). width: E, default 2 C as in the stage after. block: basic, or bottleneck (E / 4 inside), which the authors take from depth 44.
    dropout: in [0, 1), of h before the branch's classifier, not of the map (for `callback=bayesian_abn`).
    Raises ValueError for a place without a map and for sizes below 1.

    Differs from the authors' CIFAR code in: the means run over the map whatever its size (theirs: 16 x 16).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        num_classes: int,
        blocks: int = 2,
        width: int | None = None,
        block: Literal["basic", "bottleneck"] = "basic",
        weight: float = 1.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        check_shape(shape, "CHW", what="an attention branch")
        if block not in ("basic", "bottleneck"):
            raise ValueError(f"block must be basic or bottleneck, got {block!r}")
        kind = BasicBlock if block == "basic" else Bottleneck
        width = 2 * shape[0] if width is None else width
        for name, value in {"blocks": blocks, "width": width, "num_classes": num_classes}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if width % kind.expansion:
            raise ValueError(f"width must be a multiple of {kind.expansion} with bottleneck blocks, got {width}")
        if not weight >= 0:
            raise ValueError(f"weight must be at least 0, got {weight}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {dropout}")
        self.weight = weight
        widths = [shape[0], *[width] * blocks]
        self.blocks = nn.Sequential(*(kind(before, width // kind.expansion, 1) for before in widths[:-1]))
        self.bn = nn.BatchNorm2d(width)
        self.evidence = nn.Conv2d(width, num_classes, 1, bias=False)
        self.evidence_bn = nn.BatchNorm2d(num_classes)
        self.drop = nn.Dropout(dropout)
        self.classify = nn.Conv2d(num_classes, num_classes, 1, bias=False)
        self.attend = nn.Conv2d(num_classes, 1, 3, padding=1, bias=False)
        self.attend_bn = nn.BatchNorm2d(1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.map: Tensor | None = None
        self.logits: Tensor | None = None
        self.penalty: Tensor | None = None

    def forward(self, x_BCHW: Tensor, target: Tensor | None = None) -> Tensor:
        h_BKHW = F.relu(self.evidence_bn(self.evidence(self.bn(self.blocks(x_BCHW)))))
        self.logits = self.classify(self.drop(h_BKHW)).mean((2, 3))
        self.map = self.attend_bn(self.attend(h_BKHW)).sigmoid()
        self.penalty = None if target is None else self.weight * auxiliary_cross_entropy(self.logits, target)
        return x_BCHW * (1 + self.map)

    def __getstate__(self):  # a copy takes the weights, not the graph of the last batch (which cannot be copied)
        return {**super().__getstate__(), "map": None, "logits": None, "penalty": None}
