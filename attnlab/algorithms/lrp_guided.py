"""Explanation-guided training: what the head finds relevant counts for more.   Shapes: B batch, C channels, h, w map, K classes."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from attnlab.algorithms.supervised import Supervised
from attnlab.losses.cross_entropy import CrossEntropy

if TYPE_CHECKING:
    from attnlab.network import Output
    from attnlab.training.epoch import Batch
    from attnlab.training.learner import Learner


class LRPGuided(Supervised):
    """Feature maps F weighted by their own relevance, as a second term (Sun et al., LRP-guided training, arXiv 2007.08790):

        L = L(z) + weight CE(fc(GAP(F w)), y),   w = 1 + R / max_c |R|   (no gradient through w, which is in [0, 2])

    R is the relevance of F for the logits z = fc(GAP(F)), see `relevance`. For a head of average pooling and one Linear it has a closed
    form, so a step costs one more product with the head. Inference uses the plain path. Term `lrp`.

    Args:
        at: the place whose maps the head pools; `layer4` in our ResNets.
        weight: lambda >= 0; the paper has 1 with 5 shots and 0.5 with 1.
        epsilon: of the rule and of the start, > 0.

    Raises ValueError: a value out of range; a head that is not the average of `at` and a Linear at `fc`; unlabelled images are refused.
    Differs from the paper in: plain classification instead of few-shot episodes (our reading: the mechanism is the same); beta = K - 1,
    which is the authors' 4 for 5 classes, so that the start is 0 where p = 1 / K; layers beyond the pooled maps, for which the authors
    have further rules, cannot be reached. Near-uniform predictions are weighted as strongly as certain ones, as w has no scale.
    """

    takes_label_sets = False

    def __init__(
        self, shape: tuple[int, ...] = (3, 32, 32), num_classes: int = 2, *, at: str = "layer4", weight: float = 1.0, epsilon: float = 0.01
    ) -> None:
        if not weight >= 0 or not epsilon > 0:
            raise ValueError(f"weight must be 0 or more and epsilon above 0, got {weight} and {epsilon}")
        self.shape, self.at, self.weight, self.epsilon = tuple(shape), at, weight, epsilon
        self.places = (at,)
        self.cross_entropy = CrossEntropy(num_classes, 1)

    def setup(self, learner: "Learner") -> None:
        super().setup(learner)
        network = self.network
        if not isinstance(network.fc, nn.Linear):
            raise ValueError(f"lrp_guided needs a Linear at fc, there is {type(network.fc).__name__}; choose another model or algorithm")
        modes = {module: module.training for module in network.modules()}
        like = network.fc.weight
        x = torch.randn(2, *self.shape, generator=torch.Generator().manual_seed(0)).to(like)
        with torch.no_grad():
            out = network.eval()(x)
        for module, mode in modes.items():
            module.training = mode
        maps = out.values[self.at]
        pooled = maps.mean((2, 3)) if maps.ndim == 4 else maps
        if pooled.shape != (2, network.fc.in_features) or not torch.allclose(network.fc(pooled), out.logits, rtol=1e-3, atol=1e-4):
            raise ValueError(f"lrp_guided: at={self.at}: the logits are not fc of its average; name the place whose maps the head pools")

    def terms(self, learner: "Learner", batch: "Batch", teacher: "Output | None") -> "tuple[dict[str, Tensor], Output]":
        out = learner.output(batch.x, batch.y)
        terms = learner.terms(out, batch, teacher)
        maps, fc = out.values[self.at], self.network.fc
        weighted = relevance_weights(maps, fc.weight, out.logits, epsilon=self.epsilon) * maps
        again = out._replace(logits=fc(weighted.mean((2, 3))), copies=None)
        return {**terms, "lrp": self.weight * self.cross_entropy(again, out.target)["ce"]}, out


@torch.no_grad()
def relevance_weights(maps_BChw: Tensor, weight_KC: Tensor, logits_BK: Tensor, *, epsilon: float = 0.01) -> Tensor:
    """w = 1 + R / max_c |R|, (B, C, h, w) in [0, 2]; 1 where all R of a position are 0. In fp32 or better."""
    relevance_BChw = relevance(maps_BChw, weight_KC, logits_BK, epsilon=epsilon)
    largest = relevance_BChw.abs().amax(1, keepdim=True)
    return (1 + relevance_BChw / torch.where(largest > 0, largest, 1)).to(maps_BChw.dtype)


def relevance(maps_BChw: Tensor, weight_KC: Tensor, logits_BK: Tensor, *, epsilon: float = 0.01) -> Tensor:
    """Layer-wise relevance of feature maps for a head of average pooling and a Linear, LRP-epsilon without bias:

    R_k = log( beta (p_k + e) / (1 + e - p_k) ),  p = softmax(z), beta = K - 1,  s_k = R_k / (a_k + e sign a_k),  a = W GAP(F),
    R_chw = F_chw / (h w) sum_k W_kc s_k

    For e -> 0 in s it is conserved: sum R_chw = sum_k R_k.
    """
    exact = torch.promote_types(maps_BChw.dtype, torch.float32)
    maps, weight = maps_BChw.to(exact), weight_KC.to(exact)
    with torch.autocast(maps.device.type, enabled=False):
        p_BK = logits_BK.to(exact).softmax(1)
        start_BK = ((p_BK.shape[1] - 1) * (p_BK + epsilon) / (1 + epsilon - p_BK)).log()
        sum_BK = maps.mean((2, 3)) @ weight.T
        share_BK = start_BK / (sum_BK + torch.where(sum_BK >= 0, epsilon, -epsilon))
        return maps * (share_BK @ weight)[:, :, None, None] / (maps.shape[2] * maps.shape[3])
