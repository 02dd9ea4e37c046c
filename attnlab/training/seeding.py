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


def random_state(device: torch.device) -> tuple[torch.device, torch.Tensor, torch.Tensor | None]:
    """Where PyTorch's generators stand, of the CPU and of `device`; waits for no device (a GPU's generator counts on the host)."""
    return device, torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def restore_random_state(state: tuple[torch.device, torch.Tensor, torch.Tensor | None]) -> None:
    device, cpu, cuda = state
    torch.set_rng_state(cpu)
    if cuda is not None:
        torch.cuda.set_rng_state(cuda, device)
