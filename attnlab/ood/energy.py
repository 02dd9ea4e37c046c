"""Energy score, the library's; and what it cannot rank.

Legend: N samples.
"""

from torch import Tensor

from attnlab.ood.adapter import Adapter, positive
from attnlab.ood.bank import Bank


class Energy(Adapter):
    """Energy (2010.03759): -temperature * log sum_k exp(z_k / temperature).

    Raises ValueError: all energies are 0 up to rounding, because the logits are log-probabilities already (an ensemble's are).
    """

    needs_fit = False
    takes = "logits"

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__("EnergyBased", t=positive("temperature", temperature))

    def score(self, bank: Bank | Tensor) -> Tensor:
        """Scores (N,), larger = more OOD, of a bank or of logits (N, K). ValueError: logits that are log-probabilities."""
        scores_N = super().score(bank)
        if (scores_N.abs() < 1e-5).all():  # only rounding would be ranked
            raise ValueError("the logits are log-probabilities (an ensemble's are), whose energy is 0 for every input; use msp or entropy")
        return scores_N
