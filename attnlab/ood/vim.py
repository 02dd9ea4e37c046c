"""Virtual-logit matching, our own in fp64.

Legend: N samples, D features, K classes, R directions outside the principal subspace.
"""

from typing import Self

import torch
from torch import Tensor

from attnlab.ood.adapter import final_linear
from attnlab.ood.bank import Bank, exact, pooled


class ViM:
    """Virtual-logit matching (2203.10807): alpha * |f's part outside the principal subspace| - log sum_k exp(z_k).

    f is centred at -W^+ b; the subspace is that of the `principal_dim` largest eigenvalues of the training features; alpha makes the mean
    norm on the training set the mean of the largest logit. z = W f + b of the final Linear.

    Args:
        principal_dim: dimension of the principal subspace. None: the paper's rule, 1000 for more than 1500 features, else 512; and where
            that leaves nothing (512 features or fewer) half of the features, our reading.

    Not the library's: it computes in fp32, where the part outside the subspace, a small difference of large numbers, is off by up to 2e-3;
    here everything is fp64.
    Raises ValueError: no final Linear; principal_dim outside [1, D - 1]; training features that have no part outside the subspace; score
    before fit.
    """

    def __init__(self, *, principal_dim: int | None = None) -> None:
        if principal_dim is not None and principal_dim < 1:
            raise ValueError(f"principal_dim must be at least 1, got {principal_dim}")
        self.principal_dim = principal_dim
        self.alpha: float | None = None

    def fit(self, bank: Bank) -> Self:
        """The principal subspace of the bank's features, under its final layer; gives itself back."""
        width = pooled(bank, "ViM").shape[1]
        dim = self.rule(width) if self.principal_dim is None else self.principal_dim
        if not 1 <= dim < width:
            raise ValueError(f"ViM's principal_dim must be in [1, {width - 1}] for {width} features, got {dim}")
        with exact(bank), torch.no_grad():
            self.fc = final_linear(bank, "ViM")
            bias_K = 0.0 if self.fc.bias is None else self.fc.bias
            self.origin_D = -(torch.linalg.pinv(self.fc.weight) @ (bias_K + self.fc.weight.new_zeros(len(self.fc.weight))))
            features_ND = bank.features.double()
            centred_ND = features_ND - self.origin_D
            self.outside_DR = torch.linalg.eigh(centred_ND.T @ centred_ND / len(bank))[1][:, : width - dim]
            norm = (centred_ND @ self.outside_DR).norm(dim=1).mean()
            if norm <= centred_ND.norm(dim=1).mean() * width * torch.finfo(torch.float64).eps:
                raise ValueError(f"the training features have no part outside their {dim} principal directions; lower principal_dim")
            self.alpha = float(self.fc(features_ND).amax(1).mean() / norm)
        return self

    def score(self, bank: Bank) -> Tensor:
        """(N,) float64, larger = more OOD, in the bank's order."""
        if self.alpha is None:
            raise ValueError("ViM must be fitted before it scores")
        with exact(bank), torch.no_grad():
            features_ND = pooled(bank, "ViM").double()
            virtual_N = self.alpha * ((features_ND - self.origin_D) @ self.outside_DR).norm(dim=1)
            return virtual_N - self.fc(features_ND).logsumexp(1)

    @staticmethod
    def rule(width: int) -> int:
        return 1000 if width > 1500 else 512 if width > 512 else width // 2
