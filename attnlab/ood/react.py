"""Rectified activations, the library's."""

import torch

from attnlab.ood.adapter import Adapter


class ReAct(Adapter):
    """Rectified activations (2111.12797): the energy of the logits of min(f, c), c a quantile of all training activations.

    Args:
        percentile: the quantile as a fraction, the paper's 0.9.

    Raises ValueError: percentile outside [0, 1]; no final Linear.
    """

    dtype = torch.float64

    def __init__(self, *, percentile: float = 0.9) -> None:
        if not 0 <= percentile <= 1:
            raise ValueError(f"percentile must be a fraction in [0, 1], got {percentile}")
        super().__init__("ReAct", percentile=percentile)
