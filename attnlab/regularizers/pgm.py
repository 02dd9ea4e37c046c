"""Probability guided maxout: the surer the network is of the true class, the more of the largest features are dropped."""
# B batch, F features, K classes

import torch
from torch import Tensor, nn

from attnlab.regularizers.mixup import soft_labels


class ProbabilityGuidedMaxout(nn.Linear):
    """The last Linear, which drops its own largest inputs in training (PGM; Ferrari, Berretti and Del Bimbo, "Probability Guided Maxout").

        q = softmax(W x + b)[true class],   p = 1 - drop q,   keep the round(p F) smallest features
        z = W (x m s / p) + b   in training,   z = W x + b   in eval

    s is one learnt scalar, 1 at first. No gradient passes through q, p or m; round is half to even, as in the authors' code.

    It stands in the place of `fc` (`how: replace`): the probability needs the last layer's weights. Those stay the host's, under their
    names (`fc.weight`, `fc.bias`, and `fc.scale` beside them), and whoever looks for a Linear at `fc` finds one. `Output.features` are the
    features before the mask. An optimizer group of this component holds W and b too.

    Args:
        shape: (F,) of the features. host: the Linear at the place; both filled in by the placement.
        drop: in [0, 1], the fraction dropped where q = 1; 0.5 in the authors' code.

    Attributes:
        kept: mean of p in the last training pass, a 0-d tensor on the device; logged, as is s.

    Shapes: x (B, F) -> logits (B, K). target (B,) labels, (B, K) soft labels (q is then their mean probability; ours), or None: nothing is
    dropped. Copies of the images (noisy_copies) take their originals' labels. A label of no class, -1, counts as q = 0.
    Raises ValueError for a drop out of range or a host that is no Linear.

    Differs from the authors' code in: no Python loop over samples, nothing in place; ties fall by position. Their loaders normalise by the
    mean in the place of the standard deviation; that is the data's affair and not done here.
    """

    def __init__(self, shape: tuple[int, ...], *, host: nn.Module | None = None, drop: float = 0.5) -> None:
        if not isinstance(host, nn.Linear):
            found = "nothing" if host is None else f"a {type(host).__name__}"
            raise ValueError(f"pgm replaces the network's last Linear (at: fc, how: replace), here it replaces {found}")
        if not 0 <= drop <= 1:
            raise ValueError(f"drop must be in [0, 1], got {drop}")
        super().__init__(host.in_features, host.out_features, bias=host.bias is not None, device="meta")
        self.weight, self.bias = host.weight, host.bias
        self.scale = nn.Parameter(torch.ones(1, device=host.weight.device, dtype=host.weight.dtype))
        self.drop = drop
        self.kept: Tensor | None = None

    def forward(self, x_BF: Tensor, target: Tensor | None = None) -> Tensor:
        if not self.training or target is None:
            return super().forward(x_BF)
        with torch.no_grad():
            probability_BK = super().forward(x_BF).softmax(1, dtype=torch.promote_types(x_BF.dtype, torch.float32))
            soft_BK = soft_labels(target, num_classes=self.out_features).to(probability_BK.dtype)
            soft_BK = soft_BK.repeat(len(x_BF) // len(soft_BK), 1)
            keep_B = 1 - self.drop * (probability_BK * soft_BK).sum(1)
            mask_BF = smallest(x_BF, keep_B)
            self.kept = keep_B.mean()
        factor_B1 = (self.scale / keep_B.clamp_min(1e-6)).unsqueeze(1)  # drop=1, q=1: nothing is kept, and 0 / 0 would be NaN
        return super().forward((x_BF * (mask_BF * factor_B1)).to(x_BF.dtype))

    @property
    def statistics(self) -> dict[str, Tensor]:
        return {} if self.kept is None else {"kept": self.kept, "scale": self.scale.detach().squeeze()}

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, drop={self.drop}"


def smallest(x_BF: Tensor, keep_B: Tensor) -> Tensor:
    """(B, F) bool: true at the round(F keep) smallest values of each row; the earlier one where two are equal."""
    rank_BF = x_BF.argsort(dim=1, stable=True).argsort(dim=1)
    return rank_BF < torch.round(x_BF.shape[1] * keep_B).unsqueeze(1)
