"""What the members of an ensemble say apart: aleatoric and epistemic uncertainty.   Legend: N samples, M members, K classes."""

import torch
from torch import Tensor

from attnlab.ood.bank import Bank


def decomposition(logits_NMK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Total, aleatoric and epistemic uncertainty (N,) in nats, float64 (Depeweg et al., arXiv 1710.07283):

    H(mean_m p_m) = mean_m H(p_m) + I,   p_m = softmax(z_m),   H(p) = -sum_k p_k log p_k

    I >= 0, the mutual information of class and member, is computed as mean_m KL(p_m || mean_m p_m), so that small values keep their digits.
    """
    p_NMK = logits_NMK.double().softmax(2)
    mixture_N1K = p_NMK.mean(1, keepdim=True)
    information_N = (torch.special.xlogy(p_NMK, p_NMK) - torch.special.xlogy(p_NMK, mixture_N1K)).sum(2).mean(1).clamp_min(0)
    return torch.special.entr(mixture_N1K).sum((1, 2)), torch.special.entr(p_NMK).sum(2).mean(1), information_N


def members_of(bank: Bank, name: str) -> Tensor:
    """The members' logits (N, M, K) in a bank; ValueError where the network is no ensemble."""
    if bank.members is None:
        raise ValueError(f"{name} compares the members of an ensemble, and this is one network; evaluate several runs together")
    return bank.members
