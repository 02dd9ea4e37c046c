"""Batched augmentation of uint8 images, where they live, in a few kernels; and the random order and draws of one epoch.

Everything random about an epoch (order, crop offsets, mirroring) is drawn once, on the CPU, from (seed, epoch) alone. So the same
epoch is the same on every device, for the resident and the streaming loader, for any number of workers, and after a resume.

Legend: N images of the set, B of the batch, C channels, H height, W width, P padding on each side.
"""

import hashlib
from typing import NamedTuple

import torch
from torch import Tensor


def stream_seed(*parts: int | str) -> int:
    """A 63-bit seed that is a pure function of its parts (a hash, so that neighbouring epochs share nothing)."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class EpochOrder(NamedTuple):
    """One epoch of one process: row k of each is about the k-th image handed out. `order_N`, `dy_N`, `dx_N` int64, `flip_N` int64 0/1."""

    order_N: Tensor
    dy_N: Tensor
    dx_N: Tensor
    flip_N: Tensor

    def shard(self, rank: int, world_size: int, *, even: bool) -> "EpochOrder":
        """Every `world_size`-th row from `rank` on. `even=True` first cuts, else wraps round, to a multiple of `world_size`."""
        num = len(self.order_N)
        total = num // world_size * world_size if even else -(-num // world_size) * world_size
        rows = torch.arange(rank, total, world_size) % num
        return EpochOrder(*(column[rows] for column in self))

    def to(self, device: torch.device) -> "EpochOrder":
        return EpochOrder(*(column.to(device) for column in self))


def epoch_order(num: int, *, seed: int, epoch: int, pad: int) -> EpochOrder:
    """The permutation and the draws of (seed, epoch): offsets uniform in 0..2*pad, mirrored with probability 1/2."""
    generator = torch.Generator().manual_seed(stream_seed("epoch", seed, epoch))
    order_N = torch.randperm(num, generator=generator)  # drawn first: the order does not depend on the augmentation
    dy_N = torch.randint(0, 2 * pad + 1, (num,), generator=generator)
    dx_N = torch.randint(0, 2 * pad + 1, (num,), generator=generator)
    return EpochOrder(order_N, dy_N, dx_N, torch.randint(0, 2, (num,), generator=generator))


def pad_zeros(images_NHWC: Tensor, pad: int) -> Tensor:
    """Black borders in uint8 space, before normalisation, as the papers' recipes do."""
    N, H, W, C = images_NHWC.shape
    padded = images_NHWC.new_zeros(N, H + 2 * pad, W + 2 * pad, C)
    padded[:, pad : pad + H, pad : pad + W] = images_NHWC
    return padded


class Crops:
    """Windows of a padded set `(N, Hp, Wp, C)`: each batch is ONE gather of whole pixel rows. What is the same for all is kept.

    Row r of the overlapping view `runs` is the W pixels that start at pixel r, so that a crop is H of its rows.
    """

    def __init__(self, padded_NHWC: Tensor, pad: int) -> None:
        N, self.Hp, self.Wp, C = padded_NHWC.shape
        self.H, self.W = self.Hp - 2 * pad, self.Wp - 2 * pad
        shape = (N * self.Hp * self.Wp - self.W + 1, self.W * C)
        self.runs = padded_NHWC.as_strided(shape, (C, 1), padded_NHWC.storage_offset())
        self.below_H = torch.arange(self.H, device=padded_NHWC.device) * self.Wp

    def first(self, index_N: Tensor, dy_N: Tensor, dx_N: Tensor) -> Tensor:
        """The run with which the crop at (dy, dx) of image `index` begins."""
        return (index_N * self.Hp + dy_N) * self.Wp + dx_N

    def __call__(self, first_B: Tensor) -> Tensor:
        """The crops that begin there, (B, H, W, C)."""
        rows_BH = first_B[:, None] + self.below_H
        return self.runs.index_select(0, rows_BH.view(-1)).view(len(first_B), self.H, self.W, -1)


def mirror_picks(flip_N: Tensor, batch_size: int) -> Tensor:
    """For `mirror`, of a whole epoch: which of the 2 B images of its batch, unmirrored and mirrored in turn, image k is."""
    return 2 * (torch.arange(len(flip_N), device=flip_N.device) % batch_size) + flip_N


def mirror(x_BHWC: Tensor, pick_B: Tensor) -> Tensor:
    """Left-right flip where it was drawn. (Picking from both versions copies whole images: 3x faster than torch.where on a CPU.)"""
    both_B2HWC = torch.stack([x_BHWC, x_BHWC.flip(2)], 1)
    return both_B2HWC.flatten(0, 1).index_select(0, pick_B)


def scale_and_bias(
    mean: tuple[float, ...], std: tuple[float, ...], shape: tuple[int, ...], *, unit: float, device: torch.device
) -> tuple[Tensor, Tensor]:
    """fp32 constants of `(x / unit - mean) / std = x * scale + bias`, spread over (C, H, W) in channels_last order (or (D,)).

    Spread, because a broadcast over 3 channels keeps the CPU from vectorising.
    """
    mean_C, std_C = torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64)
    pair = []
    for constant_C in (1 / (unit * std_C), -mean_C / std_C):
        constant_C = constant_C.to(device, torch.float32)
        if len(shape) == 3:
            C, H, W = shape
            constant_C = constant_C.expand(H, W, C).contiguous().permute(2, 0, 1)
        pair.append(constant_C)
    return pair[0], pair[1]


def normalise(x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """`x * scale + bias` in fp32."""
    x = x.to(torch.float32, copy=True)
    return torch.addcmul(bias, x, scale, out=x)  # in place: memory fresh from the system costs a CPU more than the arithmetic
