"""Hardware-aware filter pruning: channels ranked by importance for the time that they take.   Shapes: C channels."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from attnlab.callbacks.slimming import Slimming
from attnlab.pruning.latency import channel_latency

if TYPE_CHECKING:
    from attnlab.training.learner import Learner


class HardwareRanking(Slimming):
    """Our reading of Yu et al., "HFP: hardware-aware filter pruning for deep CNN acceleration" (ICPR 2020): as `Slimming`, but a channel's
    rank is its importance over what it costs.

        score_c = |gamma_c| / cost_l,   cost_l: of one output channel of the convolution before batch norm l

    and of every layer the share `keep` of its channels with the largest |gamma| stays in any case: a channel of the first layers costs many
    times one of the last, and whole layers would fall. Established: filters are ranked with the latency of the hardware in view. Ours:
    |gamma| as importance, the cost of the producing convolution alone, the ratio, `keep`. `latency` is measured once, when training begins,
    on the run's device with `batch` images; the checkpoint keeps it, so that a run goes on as it began. Another machine, or a busy one, may
    measure and so prune otherwise: such a run is no function of its configuration, which its record says among its `warnings`, beside what
    was measured. With those numbers as `costs`, it is one, as it is with `multiply_adds`.

    Args:
        cost: latency or multiply_adds. batch: images a pass, repeats: passes measured, both >= 1. keep: in [0, 1], and a channel at least.
        weight, rate, prune, at: as `Slimming`; no more goes than `keep` leaves.
        costs: latencies that are known, above 0, one a batch norm in the network's order; nothing is measured then.

    Raises ValueError: out of range; a batch norm that no convolution comes before; another number of costs than of batch norms.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        cost: Literal["latency", "multiply_adds"] = "latency",
        batch: int = 32,
        repeats: int = 10,
        costs: Sequence[float] | None = None,
        keep: float = 0.25,
        weight: float = 1e-4,
        rate: float = 0.5,
        prune: float = 0.6,
        at: Sequence[str] = ("**",),
    ) -> None:
        super().__init__(weight=weight, rate=rate, prune=prune, at=at)
        if min(batch, repeats) < 1:
            raise ValueError(f"batch and repeats must be at least 1, got {batch} and {repeats}")
        if not 0 <= keep <= 1:
            raise ValueError(f"keep must be in [0, 1], got {keep}")
        if costs is not None and (cost != "latency" or min(costs, default=0) <= 0):
            raise ValueError(f"costs are latencies, above 0 and one a batch norm, with cost=latency; got {list(costs)} with cost={cost}")
        self.shape, self.cost, self.batch, self.repeats, self.known, self.keep = shape, cost, batch, repeats, costs, keep

    def on_fit_start(self, learner: "Learner") -> None:
        super().on_fit_start(learner)
        norms = list(self.masks.norms)
        known = [1.0] * len(norms) if self.known is None else self.known
        if len(known) != len(norms):
            raise ValueError(f"callback hardware_ranking.costs: {len(known)} numbers for {len(norms)} batch norms")
        self.costs = dict(zip(norms, known))
        if learner.optimizer and self.known is None:  # none where a trained network is only tested
            for name, (conv, x, positions) in self.producers(learner.network).items():
                per_cell = conv.weight[0].numel()
                exact = self.cost == "multiply_adds"
                self.costs[name] = float(per_cell * positions) if exact else channel_latency(conv, x, self.repeats)
            if learner.settings.world_size > 1:  # processes of ddp prune the same channels
                self.costs = learner.trainer.strategy.broadcast(self.costs)

    def measured(self) -> dict[str, list[float]]:
        return {"costs": list(self.costs.values())} if self.cost == "latency" and self.known is None else {}

    def producers(self, network: nn.Module) -> dict[str, tuple[nn.Conv2d, Tensor, int]]:
        """By batch norm: the convolution before it, what that is given, and the positions of its map."""
        norms = {norm: name for name, norm in self.masks.norms.items()}
        found: dict[str, tuple[nn.Conv2d, Tensor, int]] = {}
        last: list[tuple[nn.Conv2d, Tensor, int]] = []

        def hook(module: nn.Module, args: tuple, output: Tensor) -> None:
            if isinstance(module, nn.Conv2d):
                last[:] = [(module, args[0].detach().clone(), output[0, 0].numel())]
            elif last and last[0][0].out_channels == module.num_features:
                found[norms[module]] = last[0]

        convs = [one for one in network.backbone.modules() if isinstance(one, nn.Conv2d)]
        handles = [one.register_forward_hook(hook) for one in (*convs, *norms)]
        like = next(network.parameters())
        training = network.training
        network.eval()
        try:
            with torch.no_grad():
                network(torch.zeros(self.batch, *self.shape, device=like.device, dtype=like.dtype))
        finally:
            network.train(training)
            for handle in handles:
                handle.remove()
        if missing := [name for name in self.masks.norms if name not in found]:
            raise ValueError(f"callback hardware_ranking.at: no convolution comes right before {missing[0]}; name other batch norms")
        return found

    def scores(self) -> list[Tensor]:
        return [self.score(scale.abs(), cost) for scale, cost in zip(self.scales, self.costs.values())]

    def score(self, importance_C: Tensor, cost: float) -> Tensor:
        staying = importance_C.topk(max(math.ceil(self.keep * len(importance_C)), 1)).indices
        return (importance_C / cost).index_fill(0, staying, math.inf)

    def state_dict(self) -> dict[str, Any]:
        return {"masks": super().state_dict(), "costs": self.costs}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state["masks"])
        self.costs = {name: float(state["costs"][name]) for name in self.costs}
