"""What the device can do at most: a matrix product, a convolution of ResNet-18 alone, and from it the shortest possible training."""

from typing import Any

import torch
from torch import nn

from benches.common import Options, Table, alternate, seconds

TITLE = "Limits of the device"
TRAINING_FLOP = 3.33e9  # of ResNet-18 on one 3x32x32 image: 0.5554 GMAC forward, twice that backward


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    settings = options.settings()
    device, gpu = settings.device, settings.device.type == "cuda"
    dtype = torch.bfloat16 if settings.resolved_precision == "bf16-mixed" else torch.float32
    size, times = (8192, 20) if gpu else (1024, 3)
    a = torch.randn(size, size, device=device, dtype=dtype)
    contestants = {f"matrix product {size}": (lambda: seconds(lambda: [a @ a for _ in range(times)], device) / times, 2 * size**3)}
    for batch in (128, 512) if gpu else (16,):
        for channels, side in ((64, 32), (128, 16), (256, 8), (512, 4)):
            contestants[f"convolution 3x3, {batch}x{channels}x{side}x{side}, forward and backward"] = _convolution(
                batch, channels, side, device, dtype, times
            )
    medians = alternate({name: run for name, (run, _) in contestants.items()}, rounds=3 if options.quick else 7, warmup=2)
    rates = {name: work / medians[name] for name, (_, work) in contestants.items()}
    best = max(rates.values())
    found = {"dtype": str(dtype), "flop_per_second": rates, "resnet18_images_per_second_at_best": best / TRAINING_FLOP}
    table: Table = [["", "TFLOP/s"], *([name, f"{rate / 1e12:.2f}"] for name, rate in rates.items())]
    table.append(["200 epochs of 50,000 images at the best of these, s", f"{200 * 50_000 * TRAINING_FLOP / best:,.0f}"])
    return found, table


def _convolution(batch: int, channels: int, side: int, device: torch.device, dtype: torch.dtype, times: int) -> tuple[Any, float]:
    layer = nn.Conv2d(channels, channels, 3, padding=1, bias=False).to(device, dtype, memory_format=torch.channels_last)
    x = torch.randn(batch, channels, side, side, device=device, dtype=dtype).to(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.randn_like(x)

    def work() -> None:
        for _ in range(times):
            layer(x).backward(gradient)

    return lambda: seconds(work, device) / times, 3 * 2 * batch * side * side * channels * channels * 9
