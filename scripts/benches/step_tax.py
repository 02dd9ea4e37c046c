"""The whole attnlab training step on a network that costs next to nothing, beside a hand-written loop: what is left is the framework."""

from collections import OrderedDict
from typing import Any

import torch
from torch import nn

from benches.common import Framework, Options, Plain, Table, alternate, resident

TITLE = "What a training step costs beyond a hand-written loop (one linear layer, batch 64 of 1x16x16)"
SHAPE = (1, 16, 16)


def tiny() -> nn.Module:
    layers = {"input": nn.Identity(), "flatten": nn.Flatten(), "features": nn.Identity(), "fc": nn.Linear(256, 10)}
    return nn.Sequential(OrderedDict(layers))


def measure(options: Options) -> tuple[dict[str, Any], Table]:
    from attnlab.network import Network

    settings = options.settings()
    steps = 200 if options.quick else 1000
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on so small tensors a second thread is only in the way, of both
    try:
        whole = resident(64 * steps, SHAPE, batch_size=64, device=settings.device, pad=1, flip=True)
        bare = resident(64 * steps, SHAPE, batch_size=64, device=settings.device, pad=0, flip=False)
        batch = next(iter(bare))
        network = Network(tiny(), shape=SHAPE, num_classes=10)
        contestants = {
            "attnlab": Framework(network, whole, settings).epoch,
            "attnlab, no augmentation": Framework(Network(tiny(), shape=SHAPE, num_classes=10), bare, settings).epoch,
            "plain loop": Plain(tiny(), batch, steps, settings).epoch,
        }
        medians = alternate(contestants, rounds=3 if options.quick else 9)
    finally:
        torch.set_num_threads(threads)
    micro = {name: value * 1e6 for name, value in medians.items()}
    table = [["loop", "us a step", "over plain"]]
    table += [[name, f"{value:.0f}", f"{value - micro['plain loop']:+.0f}"] for name, value in micro.items()]
    found = {
        "attnlab_us_per_step": micro["attnlab"],
        "attnlab_without_augmentation_us_per_step": micro["attnlab, no augmentation"],
        "plain_us_per_step": micro["plain loop"],
    }
    return found, table
