"""Latency: how long a module takes, and what each channel of a convolution adds to that.   Legend: O output channels."""

import statistics
import time

import torch
from torch import Tensor, nn


def latency(network: nn.Module, x: Tensor, repeats: int) -> float:
    """Seconds that `network(x)` takes: the median of `repeats` passes."""
    seconds = []
    for _ in range(repeats + 2):
        _wait(x.device)
        start = time.perf_counter()
        network(x)
        _wait(x.device)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.no_grad()
def channel_latency(conv: nn.Conv2d, x: Tensor, repeats: int) -> float:
    """Seconds that an output channel adds to `conv(x)`: those of all O less those of half of them, over O - O // 2; above 0."""
    half = conv.out_channels // 2
    if half == 0 or conv.groups > 1:
        return max(latency(conv, x, repeats) / conv.out_channels, 1e-12)
    options = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation, "bias": conv.bias is not None}
    smaller = nn.Conv2d(conv.in_channels, half, conv.kernel_size, **options).to(conv.weight)
    return max((latency(conv, x, repeats) - latency(smaller, x, repeats)) / (conv.out_channels - half), 1e-12)
