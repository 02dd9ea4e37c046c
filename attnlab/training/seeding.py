"""Seeding: all generators of a process from a few numbers."""

import random

import numpy
import torch


def mixed_seed(*parts: int) -> int:
    """One 63-bit seed of several numbers (a splitmix step each), so that no two of (seed, epoch, rank) share a stream."""
    state = 0
    for part in parts:
        state = (state + part + 0x9E3779B97F4A7C15) & (2**64 - 1)
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & (2**64 - 1)
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & (2**64 - 1)
        state ^= state >> 31
    return state >> 1


def seed_all(*parts: int) -> None:
    seed = mixed_seed(*parts)
    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)
