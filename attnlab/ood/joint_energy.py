"""Joint energy: every class by itself, for networks that name several.   Legend: N samples, K classes."""

from typing import Self

from torch import Tensor
from torch.nn import functional as F

from attnlab.ood.bank import Bank, as_bank


class JointEnergy:
    """-sum_k log(1 + exp(z_k)): the sum of the label-wise free energies (Wang et al., "Can multi-label classification networks know what
    they don't know?", arXiv 2111.14818), the score of a multi-label network as energy is that of a softmax.

    (N,), larger = more OOD, at most 0, in the logits' precision, fp32 at least. It takes the logits of any network; those of a softmax have
    no such meaning.
    """

    needs_fit = False

    def fit(self, bank: Bank | Tensor, labels: Tensor | None = None) -> Self:
        """There is nothing to fit."""
        return self

    def score(self, bank: Bank | Tensor) -> Tensor:
        return -F.softplus(as_bank(bank, takes="logits").logits).sum(1)
