"""Layers: how far signals and their rank get through the depth.   Legend: N values of a channel, B batch, C channels, L layers."""

import torch
from torch import Tensor

from attnlab.evaluation.activations import over_activations
from attnlab.evaluation.trained import Trained

AT_ONCE = 64  # images: their maps are looked at in fp64
FLOOR = 1e-12  # of an eigenvalue beside the largest: below it a direction counts as gone


class Moments:
    """Sums over batches of what reaches one activation module (its input) and of what leaves it."""

    def __init__(self) -> None:
        self.count, self.total, self.square = 0, 0.0, 0.0
        self.alive_C: Tensor | None = None
        self.sum_C: Tensor | None = None
        self.gram_CC: Tensor | None = None

    def add(self, before: Tensor, after: Tensor) -> None:
        before, after = before.detach().double(), after.detach().double()
        self.count += before.numel()
        self.total, self.square = self.total + float(before.sum()), self.square + float(before.square().sum())
        after_NC = after.flatten(2).mT.reshape(-1, after.shape[1]) if after.ndim > 2 else after
        alive_C = (before.flatten(2).amax((0, 2)) if before.ndim > 2 else before.amax(0)) > 0
        if self.gram_CC is None:
            self.alive_C, self.rows = alive_C, 0
            self.sum_C, self.gram_CC = torch.zeros_like(after_NC[0]), torch.zeros_like(after_NC.mT @ after_NC)
        self.alive_C = self.alive_C | alive_C
        self.rows += len(after_NC)
        self.sum_C += after_NC.sum(0)
        self.gram_CC += after_NC.mT @ after_NC

    def found(self) -> dict[str, float]:
        mean = self.total / self.count
        mean_C = self.sum_C / self.rows
        covariance_CC = self.gram_CC / self.rows - mean_C[:, None] * mean_C
        values_C = torch.linalg.eigvalsh(covariance_CC).clamp_min(0)
        share_C = values_C.sqrt() / values_C.sqrt().sum().clamp_min(1e-300)
        rank = float(torch.special.entr(share_C).sum().exp()) if values_C.sum() > 0 else 0.0
        condition = float((values_C.min() / values_C.max().clamp_min(1e-300)).clamp_min(FLOOR).log10().neg())
        return {
            "mean": mean,
            "var": self.square / self.count - mean * mean,
            "dead": float((~self.alive_C).double().mean()),
            "rank_share": rank / len(values_C),
            "log_condition": condition,
        }


class Layers:
    """What ails very deep networks without skip connections, measured at every activation module in the order of the pass:

        mean, var       of the pre-activations, over images, channels and positions (vanishing, exploding signals)
        dead            share of channels whose pre-activation is above 0 for no image: dead ReLUs
        rank_share      effective rank (Roy and Vetterli, 2007) of the channels' covariance after the activation, over their number
        log_condition   log10 of the largest over the smallest eigenvalue of that covariance, at most 12: how singular

    Metrics `layers/<quantity>/first`, `/last` and `/worst` (the largest; of rank_share the smallest), and `layers/count`; all layers are
    drawn in figures/layers.png. Our reading of what Oyedotun et al. (ICPR 2020) examine: that networks without shortcuts fail by signals
    that vanish or explode and by singularity, is theirs; these five quantities are ours.

    num >= 2: test images, every class in proportion. Raises ValueError: num below 2; a network without activation modules.
    """

    takes_label_sets = True

    def __init__(self, *, num: int = 500) -> None:
        if num < 2:
            raise ValueError(f"num must be at least 2 images, got {num}")
        self.num = num

    def run(self, trained: Trained) -> dict[str, float]:
        seen: dict[str, Moments] = {}

        def see(name: str, before: Tensor, after: Tensor) -> None:
            seen.setdefault(name, Moments()).add(before, after)

        over_activations(trained, self.num, see, at_once=AT_ONCE)
        by_layer = {name: moments.found() for name, moments in seen.items()}
        self.draw(trained, by_layer)
        metrics: dict[str, float] = {"layers/count": len(by_layer)}
        for quantity in next(iter(by_layer.values())):
            values = [found[quantity] for found in by_layer.values()]
            worst = min(values) if quantity == "rank_share" else max(values, key=abs)
            shown = {"first": values[0], "last": values[-1], "worst": worst}
            metrics |= {f"layers/{quantity}/{word}": value for word, value in shown.items()}
        return metrics

    def draw(self, trained: Trained, by_layer: dict[str, dict[str, float]]) -> None:
        from attnlab.figures.layers import layer_curves

        layer_curves(by_layer, path=trained.picture("layers.png", "layers"))
