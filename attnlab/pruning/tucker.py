"""Tucker-2: a convolution as three thinner ones.   Legend: O, I output and input channels, k kernel size, r ranks."""

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from attnlab.network import Network


def unfold(weight: Tensor, mode: int) -> Tensor:
    """(O, I k k) for mode 0, (I, O k k) for mode 1."""
    return weight.movedim(mode, 0).flatten(1)


def shrunk(weight: Tensor, mode: int, amount: float) -> Tensor:
    """The weight with every singular value of its unfolding lowered by `amount`, to 0 at least: the proximal step of the nuclear norm."""
    u, s, v = torch.linalg.svd(unfold(weight, mode), full_matrices=False)
    low = (u * (s - amount).clamp_min(0)) @ v
    moved = weight.movedim(mode, 0)
    return low.view(moved.shape).movedim(0, mode)


def ranks(weight: Tensor, *, energy: float) -> tuple[int, int]:
    """How many singular values of each unfolding (output, input) hold `energy` of the sum of their squares, at least one."""
    found = []
    for mode in (0, 1):
        s = torch.linalg.svdvals(unfold(weight.detach().double(), mode)).square()
        share = s.cumsum(0) / s.sum().clamp_min(torch.finfo(s.dtype).tiny)
        found.append(min(int((share < energy - 1e-12).sum()) + 1, len(s)))
    return found[0], found[1]


@torch.no_grad()
def tucker2(conv: nn.Conv2d, rank_out: int, rank_in: int) -> nn.Sequential:
    """1x1 (I -> r_I), kxk (r_I -> r_O) with the stride, padding and dilation, 1x1 (r_O -> O) with the bias (Kim et al., arXiv 1511.06530).

    The factors are the leading singular vectors of the unfoldings; with full ranks the three are the convolution itself.
    """
    weight = conv.weight.double()
    out = torch.linalg.svd(unfold(weight, 0), full_matrices=False)[0][:, :rank_out]
    into = torch.linalg.svd(unfold(weight, 1), full_matrices=False)[0][:, :rank_in]
    core = torch.einsum("oikl,or,is->rskl", weight, out, into)
    options = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation, "padding_mode": conv.padding_mode}
    parts = nn.Sequential(
        nn.Conv2d(conv.in_channels, rank_in, 1, bias=False),
        nn.Conv2d(rank_in, rank_out, conv.kernel_size, bias=False, **options),
        nn.Conv2d(rank_out, conv.out_channels, 1, bias=conv.bias is not None),
    ).to(conv.weight)
    for part, value in zip(parts, (into.mT[:, :, None, None], core, out[:, :, None, None])):
        part.weight.copy_(value)
    if conv.bias is not None:
        parts[2].bias.copy_(conv.bias)
    return parts


def decomposed(network: "Network", *, energy: float = 0.99) -> "Network":
    """A copy of `network` with every convolution of a kernel above 1x1 as its `tucker2` of the ranks that hold `energy`, where that has
    fewer weights; grouped ones stay. ValueError: energy outside (0, 1]; components placed at such a convolution, which would be lost."""
    if not 0 < energy <= 1:
        raise ValueError(f"energy must be in (0, 1], got {energy}")
    plain = copy.deepcopy(network).eval()
    for name, conv in list(plain.backbone.named_modules()):
        if not isinstance(conv, nn.Conv2d) or conv.groups > 1 or max(conv.kernel_size) == 1:
            continue
        parts = tucker2(conv, *ranks(conv.weight, energy=energy))
        if sum(part.weight.numel() for part in parts) < conv.weight.numel():
            if conv._forward_hooks or conv._forward_pre_hooks:
                raise ValueError(f"something is placed at {name}, which is to become three convolutions")
            parent, _, last = name.rpartition(".")
            setattr(plain.backbone.get_submodule(parent), last, parts)
    return plain
