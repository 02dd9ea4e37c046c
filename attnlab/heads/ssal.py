"""SSAL: auxiliary classifiers that predict coarse groups of the classes, and the joint prediction of all of them."""
# B batch, C channels, H height, W width, K classes, G groups

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from attnlab.heads.class_groups import even_groups
from attnlab.losses.auxiliary import auxiliary_cross_entropy
from attnlab.placement.shapes import check_shape


def joint_log_probabilities(logits_BK: Tensor, aux_logits: Sequence[Tensor], groups: Sequence[Tensor], exponent: float) -> Tensor:
    """log p_j, with p_j proportional to softmax(z)_j * prod_b softmax(a_b)[group_b(j)]^exponent; normalised, fp32 or better, (B, K).

    aux_logits: (B, G_b) each; groups: (K,) each, the group of every class.
    """
    with torch.autocast(logits_BK.device.type, enabled=False):
        dtype = torch.promote_types(logits_BK.dtype, torch.float32)
        joint_BK = logits_BK.to(dtype).log_softmax(1)
        for aux_BG, group_K in zip(aux_logits, groups, strict=True):
            joint_BK = joint_BK + exponent * aux_BG.to(dtype).log_softmax(1).index_select(1, group_K)
        return joint_BK.log_softmax(1)


def group_cross_entropy(aux_BG: Tensor, target: Tensor, group_K: Tensor) -> Tensor:
    """Mean cross-entropy of a branch with the groups of the labels, which are class numbers (B,) or probabilities (B, K)."""
    if target.is_floating_point():
        member_KG = group_K[:, None] == torch.arange(aux_BG.shape[1], device=group_K.device)
        with torch.autocast(aux_BG.device.type, enabled=False):  # which would round the labels
            target = target @ member_KG.to(target.dtype)
        return auxiliary_cross_entropy(aux_BG, target)
    return auxiliary_cross_entropy(aux_BG, group_K[target])


class SSAL(nn.Module):
    """Self-supervised autogenous learning (Palacio et al., ICPR 2020): put after `fc`, with `reads: [layer1, layer2, layer3, target]`.

    A branch b at each place that is read gives logits a_b of G_b groups of the classes. In training
        `.penalty` = sum_b weights[b] * cross-entropy(a_b, group_b(y))
    and the network's logits z pass as they are. In eval mode, with `joint`, the logits become log p,
        p_j proportional to softmax(z)_j * prod_b softmax(a_b)[group_b(j)]^exponent.
    Log-probabilities have the energy 0 for every image: for OOD heads of energies set joint=False, and to measure training alone ("+TR").

    groups: one entry a branch: a list of K group numbers, as `attnlab.heads.class_groups.group_classes` finds them in the confusion
        matrix of a network trained before (on validation images, never test images: `groups` is part of the configuration), or a number G:
        classes in their order, cut in G even groups. That second form is ours: a start without a first network, and a control.
        Default: K/5, K/3, K/2 (two at least) for the last three, two or one of the branches, as 20, 33, 50 of 100 in the paper.
    weights: one a branch; the authors have (.42, .59, .76) for CIFAR-100 with ResNet-50, (.8, .9, 1.) with WRN and DenseNet.
    exponent: e in [0, inf); .3 for ResNet-50, .4 WRN, .5 DenseNet. width: channels of the branches.
    A branch: conv5x5/2, BN, ReLU, conv3x3, BN, ReLU, mean over the map, Linear(G). Differs from the authors' in: no inception block after
    the two convolutions, whose sizes we do not know. Losses, grouping and joint prediction are those of the code.

    shape: (K,); read_shapes: (C, H, W) each. x, y: (B, K). Raises ValueError for another place, for reads without `target` at the end, for
    groups or weights that do not fit.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        read_shapes: Sequence[tuple[int, ...]],
        groups: Sequence[int | Sequence[int]] | None = None,
        weights: Sequence[float] | None = None,
        exponent: float = 0.3,
        joint: bool = True,
        width: int = 128,
    ):
        super().__init__()
        check_shape(shape, "D", what="ssal", hint="it reads the logits, as at fc")
        if not read_shapes or any(len(read) != 3 for read in read_shapes):
            raise ValueError(f"reads must name places with maps (C, H, W), then target; got shapes {[tuple(read) for read in read_shapes]}")
        if not 0 <= exponent < float("inf"):
            raise ValueError(f"exponent must be at least 0, got {exponent}")
        if width < 1:
            raise ValueError(f"width must be at least 1, got {width}")
        (num_classes,), num = shape, len(read_shapes)
        weights = [0.42, 0.59, 0.76][-num:] if weights is None else list(weights)
        groups = [max(num_classes // parts, 2) for parts in (5, 3, 2)][-num:] if groups is None else list(groups)
        for name, values in {"weights": weights, "groups": groups}.items():
            if len(values) != num:
                raise ValueError(f"{name} must have an entry for each of the {num} places that are read, got {len(values)}")
        self.weights, self.exponent, self.joint = weights, exponent, joint
        self.branches = nn.ModuleList()
        for index, (entry, read) in enumerate(zip(groups, read_shapes)):
            group_K = torch.tensor(even_groups(num_classes, entry) if isinstance(entry, int) else list(entry))
            if group_K.shape != (num_classes,) or group_K.unique().tolist() != list(range(int(group_K.max()) + 1)):
                raise ValueError(f"groups[{index}] must give each of {num_classes} classes a group 0, 1, ..., none empty, got {entry}")
            self.register_buffer(f"group{index}", group_K)
            self.branches.append(branch(read[0], width, int(group_K.max()) + 1))
        self.penalty: Tensor | None = None

    def forward(self, logits_BK: Tensor, *maps_and_target: Tensor | None) -> Tensor:
        *maps, target = maps_and_target
        self.penalty = None
        if target is None and not (self.joint and not self.training):
            return logits_BK
        aux = [branch(x_BCHW) for branch, x_BCHW in zip(self.branches, maps, strict=True)]
        groups = [self.get_buffer(f"group{index}") for index in range(len(aux))]
        if target is not None:
            terms = (w * group_cross_entropy(a_BG, target, group_K) for w, a_BG, group_K in zip(self.weights, aux, groups))
            self.penalty = sum(terms)
        return joint_log_probabilities(logits_BK, aux, groups, self.exponent) if self.joint and not self.training else logits_BK

    def __getstate__(self):  # a copy takes the weights, not the graph of the last batch (which cannot be copied)
        return {**super().__getstate__(), "penalty": None}


def branch(in_channels: int, width: int, num_groups: int) -> nn.Sequential:
    """conv5x5/2, BN, ReLU, conv3x3, BN, ReLU, mean over the map, Linear."""
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 5, stride=2, padding=2, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, num_groups),
    )
