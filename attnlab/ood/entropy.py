"""Predictive entropy.   Legend: N samples, K classes."""

from typing import Self

import torch
from torch import Tensor

from attnlab.ood.bank import Bank, as_bank


class Entropy:
    """score = -sum_k p_k log p_k, p = softmax(logits): the entropy of the prediction in nats, from 0 (certain) to log K (1612.01474).

    What deep ensembles tell known from unknown classes by; with an ensemble's logits (log of the mean probability) it is the entropy of
    the mixture, so both doubt within the members and disagreement between them raise it.

    score gives (N,) float64; there is nothing to fit. A class of probability 0 (a logit of -inf) adds nothing; rows with NaN or +inf are
    NaN. pytorch-ood's detector of this name puts a floor of 1e-7 under each p_k, below which all certainty looks nearly the same.
    """

    needs_fit = False

    def fit(self, bank: Bank | Tensor, labels: Tensor | None = None) -> Self:
        """There is nothing to fit."""
        return self

    def score(self, bank: Bank | Tensor) -> Tensor:
        """(N,) float64, larger = more OOD, of a bank or of logits (N, K); in their order."""
        bank = as_bank(bank, takes="logits")
        return torch.special.entr(bank.logits.double().softmax(1)).sum(1)
