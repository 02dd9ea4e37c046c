"""Epistemic uncertainty of an ensemble, the mutual information of class and member (arXiv 1710.07283)."""

from torch import Tensor

from attnlab.ood.bank import Bank
from attnlab.ood.members import decomposition, members_of


class MutualInformation:
    """score = H(mean_m p_m) - mean_m H(p_m), in [0, log min(M, K)]: how much the members disagree; see `decomposition`.

    ValueError: the network is no ensemble.
    """

    needs_fit = False

    def fit(self, bank: Bank) -> None:
        """Nothing is fitted."""

    def score(self, bank: Bank) -> Tensor:
        """Scores (N,), larger = more OOD, of a bank that has its members' logits."""
        return decomposition(members_of(bank, "mutual_information"))[2]
