"""Detectors of pytorch-ood (https://github.com/kkirchheim/pytorch-ood) as OOD heads: what is shared by the heads that it computes.

Legend: N samples, D features, K classes.

All of them: scores are float32 or float64, larger = more OOD; logits are taken in fp64 before any softmax, so that confident samples do not
tie at 1; matrix products are full fp32, whatever the run has set for training; a bank without what a head needs is a ValueError.
"""

import inspect
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from attnlab.ood.bank import Bank, as_bank, exact, pooled

# the library's names of what a detector is fed, and the field of the bank that is it
VIEWS = {"logits": "logits", "features": "features", "feature_maps": "features"}
MODELS = ("model", "encoder", "backbone")  # constructor arguments that only the library's own passes over data need


class Adapter:
    """A pytorch-ood detector as a head. It is made when a bank is at hand, as some take the weights of the bank's final layer."""

    needs_fit = True
    takes: ClassVar[Literal["features", "logits"]] = "features"  # what a tensor in the place of a bank is
    dtype = torch.float32  # of features; several detectors keep fp32 state and cannot mix

    def __init__(self, detector: str, **parameters: Any) -> None:
        self.name, self.parameters = detector, parameters
        self.detector: Any = None

    def fit(self, bank: Bank | Tensor, labels: Tensor | None = None) -> Self:
        """Fit the detector to a bank, or to what it `takes`, (N, D) features or (N, K) logits, and labels (N,); gives itself back."""
        bank = as_bank(bank, labels, takes=self.takes)
        with exact(bank), torch.enable_grad():  # temperature scaling optimises
            self._make(bank)
            values = self.read(bank)
            getattr(self.detector, f"fit_{self.view}")(values, bank.labels.to(values.device))
        return self

    def score(self, bank: Bank | Tensor) -> Tensor:
        """(N,), larger = more OOD, of a bank or of what it `takes`, in their order."""
        bank = as_bank(bank, takes=self.takes)
        if self.detector is None and self.needs_fit:
            raise ValueError(f"{self.name} must be fitted before it scores")
        with exact(bank), torch.no_grad():
            if self.detector is None:
                self._make(bank)
            return getattr(self.detector, f"predict_{self.view}")(self.read(bank)).detach()

    def read(self, bank: Bank) -> Tensor:
        """What the detector is fed."""
        if VIEWS[self.view] == "logits":
            return bank.logits.double()
        return pooled(bank, self.name).to(self.dtype)

    def _make(self, bank: Bank) -> None:
        import pytorch_ood.detector

        cls = getattr(pytorch_ood.detector, self.name)
        self.view = next(view for view in VIEWS if hasattr(cls, f"predict_{view}"))
        takes = inspect.signature(cls).parameters
        given = {name: None for name in MODELS if name in takes}
        if {"w", "b", "head"} & takes.keys():
            head = final_linear(bank, self.name).to(self.dtype)
            given |= {name: value for name, value in (("w", head.weight), ("b", head.bias), ("head", head)) if name in takes}
        self.detector = cls(**given, **self.parameters)


@torch.no_grad()
def final_linear(bank: Bank, name: str) -> nn.Linear:
    """A copy of the bank's final layer in fp64, without whatever hangs on it; ValueError unless it makes the logits of the features."""
    fc, features_ND = bank.fc, pooled(bank, name)
    if not isinstance(fc, nn.Linear):
        what = "None" if fc is None else type(fc).__name__
        raise ValueError(f"{name} needs the weights of a final nn.Linear, and the bank's fc is {what}")
    if fc.in_features != features_ND.shape[1]:
        raise ValueError(f"{name}: the final layer takes {fc.in_features} features, and the bank holds {features_ND.shape[1]}")
    head = nn.utils.skip_init(nn.Linear, fc.in_features, fc.out_features, device=features_ND.device, dtype=torch.float64)
    head.requires_grad_(False)
    head.weight.copy_(fc.weight)
    head.bias.copy_(torch.zeros(fc.out_features) if fc.bias is None else fc.bias)
    some = slice(0, 64)
    away = (head(features_ND[some].double()) - bank.logits[some]).abs().max()
    # loose, as the logits may come from a bf16 product
    if head.out_features != bank.logits.shape[1] or away > 0.05 * bank.logits[some].abs().max() + 0.05:
        raise ValueError(f"{name}: the final layer does not map the features to the logits; something stands between or behind them")
    return head


def positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, got {value}")
    return float(value)
