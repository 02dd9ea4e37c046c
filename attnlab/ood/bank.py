"""Banks: what a network says of a data set, shared by all OOD heads.

Legend: N samples, D features, K classes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Bank:
    """Features (N, D), logits (N, K), labels (N,) of one data set, in its order, on one device.

    Features and logits are fp32: lower precision is cast up, fp64 stays. labels are int64, -1 for OOD samples. `fc` is the final layer,
    for heads that need its weights, or None; members (N, M, K), logits of an ensemble's members, or None.
    A network that names no `features` place has features of width 0.

    Raises ValueError: shapes that disagree, no sample, labels that are no integers, several devices.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor
    fc: nn.Module | None = None
    members: Tensor | None = None

    def __post_init__(self) -> None:
        shapes = f"features {tuple(self.features.shape)}, logits {tuple(self.logits.shape)}, labels {tuple(self.labels.shape)}"
        if (self.features.ndim, self.logits.ndim, self.labels.ndim) != (2, 2, 1):
            raise ValueError(f"a bank holds features (N, D), logits (N, K) and labels (N,), got {shapes}")
        if not len(self.features) == len(self.logits) == len(self.labels) > 0:
            raise ValueError(f"a bank needs as many features as logits as labels, and one at least, got {shapes}")
        if self.labels.is_floating_point():
            raise ValueError(f"labels of a bank must be class numbers, got {self.labels.dtype}")
        if len({self.features.device, self.logits.device, self.labels.device}) > 1:
            raise ValueError(f"a bank is on one device, got {self.features.device}, {self.logits.device} and {self.labels.device}")
        for name in ("features", "logits"):
            value = getattr(self, name)
            object.__setattr__(self, name, value.to(torch.promote_types(value.dtype, torch.float32)))
        if self.members is not None and (self.members.ndim != 3 or len(self.members) != len(self.logits)):
            raise ValueError(f"members of a bank are logits (N, M, K), got {tuple(self.members.shape)} beside {shapes}")
        object.__setattr__(self, "labels", self.labels.long())

    def __len__(self) -> int:
        return len(self.labels)


def as_bank(given: Bank | Tensor, labels: Tensor | None = None, *, takes: Literal["features", "logits"] = "features") -> Bank:
    """A bank as it is; of a tensor (or array) of features (N, D), or logits (N, K), and labels (N,) a bank that holds nothing else.

    Without labels all are -1. ValueError: a tensor of another shape, labels beside a bank, and as `Bank`.
    """
    if isinstance(given, Bank):
        if labels is not None:
            raise ValueError("a bank holds its labels; give labels only beside a tensor")
        return given
    values = torch.as_tensor(given)
    if values.ndim != 2:
        raise ValueError(f"{takes} must be ({'N, D' if takes == 'features' else 'N, K'}), a row a sample, got {tuple(values.shape)}")
    labels = torch.full((len(values),), -1, device=values.device) if labels is None else torch.as_tensor(labels, device=values.device)
    none = values.new_empty(len(values), 0)
    return Bank(values.detach(), none, labels) if takes == "features" else Bank(none, values.detach(), labels)


@contextmanager
def exact(bank: Bank) -> Iterator[None]:
    """Neither autocast nor TF32 nor bf16 inside fp32 matrix products: a distance is a small difference of large numbers."""
    products = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [product.fp32_precision for product in products]
    try:
        for product in products:
            product.fp32_precision = "ieee"
        with torch.autocast(bank.logits.device.type, enabled=False):
            yield
    finally:
        for product, precision in zip(products, before):
            product.fp32_precision = precision


def pooled(bank: Bank, name: str) -> Tensor:
    """The bank's features, for the head `name`. ValueError: there are none."""
    if bank.features.shape[1] == 0:
        raise ValueError(f"{name} works on features, and the network names no `features` place")
    return bank.features
