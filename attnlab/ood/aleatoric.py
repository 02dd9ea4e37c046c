"""Aleatoric uncertainty of an ensemble (arXiv 1710.07283)."""

from torch import Tensor

from attnlab.ood.bank import Bank
from attnlab.ood.members import decomposition, members_of


class Aleatoric:
    """score = mean_m H(p_m): how undecided the members are by themselves, whether or not they agree; see `decomposition`.

    The total is `Entropy` of the ensemble's logits. ValueError: the network is no ensemble.
    """

    needs_fit = False

    def fit(self, bank: Bank) -> None:
        """Nothing is fitted."""

    def score(self, bank: Bank) -> Tensor:
        """Scores (N,), larger = more OOD, of a bank that has its members' logits."""
        return decomposition(members_of(bank, "aleatoric"))[1]
