"""Cost: what a trained network takes, and what it takes without the channels that pruning has emptied."""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from attnlab.evaluation.trained import TEST, Trained
from attnlab.metrics import accuracy
from attnlab.pruning.export import export
from attnlab.pruning.latency import latency
from attnlab.pruning.tucker import decomposed


class Cost:
    """`cost/parameters`, `cost/nonzero` (those that are not 0), `cost/zeros` (share of weights of convolutions and Linears that are 0),
    `cost/multiply_adds` (of convolutions and matrix products, one image), `cost/latency_ms` (one batch, median of `repeats` passes), all of
    the network as it is tested.

    With `export` the same under `cost/exported/...` of a smaller network, with the largest difference of a logit on a batch,
    `cost/exported/gap`, and `cost/exported/acc` on the test images.

    Args:
        batch: images of the batch whose latency is measured. repeats: >= 1, after two passes to warm up.
        export: none; channels: the network without its empty channels, `attnlab.pruning.export`; tucker: every convolution as a Tucker-2
            of the ranks that hold `energy`, `attnlab.pruning.tucker`, which is an approximation.

    Raises ValueError: out of range, or as `export`. A latency is of the machine and its load: the only metric here that no seed repeats.
    """

    def __init__(
        self, *, batch: int = 1, repeats: int = 20, export: Literal["none", "channels", "tucker"] = "none", energy: float = 0.99
    ) -> None:
        if batch < 1 or repeats < 1:
            raise ValueError(f"batch and repeats must be at least 1, got {batch} and {repeats}")
        self.batch, self.repeats, self.export, self.energy = batch, repeats, export, energy

    def run(self, trained: Trained) -> dict[str, float]:
        x, *_ = next(iter(trained.loader(TEST)))
        found = self.of(trained.network, x)
        metrics = {f"cost/{name}": value for name, value in found.items()}
        if self.export != "none":
            smaller = export(trained.network, x) if self.export == "channels" else decomposed(trained.network, energy=self.energy)
            with torch.no_grad():
                gap = (smaller(x).logits - trained.network(x).logits).abs().max()
            metrics |= {f"cost/exported/{name}": value for name, value in self.of(smaller, x).items() if name != "zeros"}
            bank = replace(trained, network=smaller, banks={}, stored={}).bank(TEST)
            metrics |= {"cost/exported/gap": float(gap), "cost/exported/acc": accuracy(bank.logits, bank.labels)}
        return metrics

    @torch.no_grad()
    def of(self, network: nn.Module, x: Tensor) -> dict[str, float]:
        network.eval()
        weights = [m.weight for m in network.modules() if isinstance(m, nn.Linear | nn.modules.conv._ConvNd)]
        with FlopCounterMode(display=False) as counter:
            network(x[:1])
        return {
            "parameters": float(sum(parameter.numel() for parameter in network.parameters())),
            "nonzero": float(sum(parameter.count_nonzero() for parameter in network.parameters())),
            "zeros": float(sum((one == 0).sum() for one in weights) / max(sum(one.numel() for one in weights), 1)),
            "multiply_adds": counter.get_total_flops() / 2,
            "latency_ms": latency(network, x[: self.batch], self.repeats) * 1e3,
        }
