"""Explanations as features, by an autoencoder.   Legend: N samples, D values of a pooled map."""

from typing import Any

import torch
from torch import Tensor, nn

from attnlab.ood.explanation import Explanation


class ExplanationAutoencoder(Explanation):
    """score = mean_d (v_d - decode(encode(v))_d)^2,  D -> hidden -> D with a ReLU, trained on the attributions of training images.

    See `Explanation`, whose vectors it takes; the predicted class enters by its attribution alone. Adam, minibatches of 256.

    Args:
        hidden: values in between; 256 -> 64 -> 256 with the default side of 16.
        epochs, lr: of its training. seed: of its start and order.

    Our reading. Raises ValueError: hidden or epochs < 1.
    """

    def __init__(
        self, *, explainer: Any = None, side: int = 16, hidden: int = 64, epochs: int = 50, lr: float = 1e-3, seed: int = 0
    ) -> None:
        super().__init__(explainer=explainer, side=side)
        if hidden < 1 or epochs < 1:
            raise ValueError(f"hidden and epochs must be at least 1, got {hidden} and {epochs}")
        self.hidden, self.epochs, self.lr, self.seed = hidden, epochs, lr, seed

    @torch.enable_grad()
    def fit_vectors(self, vectors_ND: Tensor, guessed_N: Tensor) -> None:
        v_ND = vectors_ND.float()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            dim = v_ND.shape[1]
            self.model = nn.Sequential(nn.Linear(dim, self.hidden), nn.ReLU(), nn.Linear(self.hidden, dim)).to(v_ND)
        generator = torch.Generator().manual_seed(self.seed)
        optimizer = torch.optim.Adam(self.model.parameters(), lr=self.lr)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(v_ND), generator=generator).to(v_ND.device).split(256):
                loss = (self.model(v_ND[rows]) - v_ND[rows]).square().mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

    @torch.no_grad()
    def score_vectors(self, vectors_ND: Tensor, guessed_N: Tensor) -> Tensor:
        v_ND = vectors_ND.float()
        return (self.model(v_ND) - v_ND).square().mean(1)
