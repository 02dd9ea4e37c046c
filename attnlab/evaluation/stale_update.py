"""Stale updates: what all weights lose by moving at once.   Legend: B batch, i weights."""

import torch
from torch import Tensor
from torch.nn import functional as F

from attnlab.evaluation.trained import TEST, Trained
from attnlab.ood.extract import for_gradients


class StaleUpdate:
    """Our reading of Gupta, "Inherent noise in gradient based methods" (arXiv 2005.12743): every weight's step is right for the others
    where they were, not where they go. With g the gradient of the cross-entropy on one training batch and H the Hessian on a batch B,

        penalty(B) = [ L_B(w - r g) - L_B(w) ] - sum_i [ L_B(w - r g_i e_i) - L_B(w) ]
                   = r^2 / 2 ( g^T H g - sum_i H_ii g_i^2 ) + O(r^3),      sum_i H_ii g_i^2 = E_z (z g)^T H (z g),  z_i = +-1

    `stale_update/current`, B the batch of g, `stale_update/held_out`, B a batch of test images, and the same over the first-order gain
    r |g|^2, `.../relative`. To second order; in eval mode. The paper finds it larger for the current batch.

    rate: r > 0. batch: images, draws: of z, both >= 1. ValueError: out of range.
    """

    def __init__(self, *, rate: float = 0.01, batch: int = 128, draws: int = 8) -> None:
        if not rate > 0 or min(batch, draws) < 1:
            raise ValueError(f"rate must be above 0, batch and draws at least 1, got {rate}, {batch} and {draws}")
        self.rate, self.batch, self.draws = rate, batch, draws

    def run(self, trained: Trained) -> dict[str, float]:
        network, data = trained.network, trained.data
        weights = [weight for weight in network.parameters() if weight.is_floating_point()]
        for weight in weights:
            weight.requires_grad_(True)
        losses = {}
        for name, split in (("current", "train"), ("held_out", TEST)):
            _, images = trained.choice(split, self.batch, seed=trained.seed)
            x, y = data.normalise(images.images).to(trained.settings.device), images.labels.to(trained.settings.device)
            losses[name] = (x, y)
        found = {}
        with for_gradients(losses["current"][0]):
            slopes = {name: self.slope(network, x, y, weights) for name, (x, y) in losses.items()}
            step = [gradient.detach() for gradient in slopes["current"]]
            gain = self.rate * sum(gradient.square().sum() for gradient in step)
            for name, gradients in slopes.items():
                penalty = self.penalty(gradients, weights, step)
                found |= {f"stale_update/{name}": float(penalty), f"stale_update/{name}/relative": float(penalty / gain)}
        return found

    @staticmethod
    def slope(network: torch.nn.Module, x: Tensor, y: Tensor, weights: list[Tensor]) -> list[Tensor]:
        """The gradient, of which gradients can be taken."""
        loss = F.cross_entropy(network(x).logits, y)
        gradients = torch.autograd.grad(loss, weights, create_graph=True, allow_unused=True)
        return [torch.zeros_like(w) if gradient is None else gradient for w, gradient in zip(weights, gradients)]

    def penalty(self, gradients: list[Tensor], weights: list[Tensor], step: list[Tensor]) -> Tensor:
        whole = _curvature(gradients, weights, step)
        parts = []
        for _ in range(self.draws):
            signs = [torch.randint(2, one.shape).to(one) * 2 - 1 for one in step]
            parts.append(_curvature(gradients, weights, [sign * one for sign, one in zip(signs, step)]))
        return self.rate**2 / 2 * (whole - torch.stack(parts).mean())


def _curvature(gradients: list[Tensor], weights: list[Tensor], along: list[Tensor]) -> Tensor:
    """v^T H v for v = `along`."""
    slope = sum((gradient * one).sum() for gradient, one in zip(gradients, along))
    if not slope.requires_grad:
        return slope.new_zeros(())
    products = torch.autograd.grad(slope, weights, retain_graph=True, allow_unused=True)
    return sum((product * one).sum() for product, one in zip(products, along) if product is not None)
