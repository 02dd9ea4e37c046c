"""Output sensitivity: how much the logits move when the images do.   Shapes: N images, K classes."""

from collections.abc import Iterator

import torch
from torch import Tensor

from attnlab.evaluation.trained import TEST, Trained


def output_sensitivity(logits_NK: Tensor, moved_NK: Tensor) -> Tensor:
    """S = Var_n( mean_k( f_k(x_n + e_n) - f_k(x_n) ) ), the biased variance over images (Forouzesh et al., arXiv 2007.15378); 0-d, >= 0.

    For f = W x + b and e ~ N(0, s^2 I) it is s^2 |mean_k W_k|^2. The mean over classes is signed, as in the authors' code, so that S
    depends on what all logits have in common, which no prediction depends on: it compares networks of one recipe, not of two losses.
    """
    return (moved_NK - logits_NK).double().mean(1).var(correction=0)


class Sensitivity:
    """`sensitivity/output`: `output_sensitivity` of the test images under normal noise, one draw an image; it needs no labels.

    Lower goes with better generalisation between networks trained to the same training loss, says the paper, which averages ten networks.

    Args:
        sigma: > 0, standard deviation of the noise, in units of pixels in [0, 1] (the paper: 0.1), whatever the normalisation.

    Raises ValueError: sigma not above 0. The noise is drawn on the CPU from the run's seed. Moved images are not clipped to [0, 1]. Both
    passes are in fp32, whatever the run's precision: weight decay takes what logits have in common down to where bf16 rounds.
    """

    takes_label_sets = True

    def __init__(self, *, sigma: float = 0.1) -> None:
        if not 0 < sigma < float("inf"):
            raise ValueError(f"sigma must be above 0, got {sigma}")
        self.sigma = sigma

    def run(self, trained: Trained) -> dict[str, float]:
        from attnlab.ood.extract import extract

        _, std_C = trained.data.moments()

        def moved() -> Iterator[tuple[Tensor, Tensor]]:
            for x, y in trained.loader(TEST):
                scale = x.new_tensor(std_C).view(-1, *[1] * (x.ndim - 2))
                yield x + self.sigma * torch.randn(x.shape).to(x.device) / scale, y

        logits_NK, moved_NK = (extract(trained.network, batches).logits for batches in (trained.loader(TEST), moved()))
        return {"sensitivity/output": float(output_sensitivity(logits_NK, moved_NK))}
