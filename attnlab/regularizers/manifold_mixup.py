"""Manifold mixup: blend images or hidden values, at a place drawn anew for every batch."""
# B batch, K classes

import torch
from torch import Tensor, nn

from attnlab.regularizers.mixup import check_labels, draw_beta, soft_labels


class OnePlace:
    """What the places of one manifold mixup share: for every pass one place, one lambda and one permutation.

    The module that is built first draws, the one built last clears: they are built in the order of the network. A config's node is built
    once, before the modules of all places, which is how they come to share it.
    """

    def __init__(self) -> None:
        self.count = 0
        self.drawn: tuple[Tensor, Tensor, Tensor] | None = None

    def join(self) -> int:
        """The next place's number."""
        self.count += 1
        return self.count - 1

    def draw(self, number: int, size: int, *, alpha: float, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Whether place `number` is the one of this pass (0-d bool), lambda (0-d) and the partners (size,)."""
        if number == 0 or self.drawn is None:
            self.drawn = torch.randint(self.count, (), device=device), draw_beta(alpha, device), torch.randperm(size, device=device)
        chosen, lam, partner_B = self.drawn
        if number == self.count - 1:
            self.drawn = None
        return chosen == number, lam, partner_B


class ManifoldMixup(nn.Module):
    """Blend every sample with a partner, in the images or in a hidden layer (Verma et al., arXiv 1806.05236).

        k ~ U{the places},  lam ~ Beta(alpha, alpha),  p a random permutation, one of each a batch;  at place k
        h' = lam h + (1 - lam) h[p],   t' = lam t + (1 - lam) t[p];   unchanged elsewhere, in eval and where there are no labels

    Place it after each layer that may be chosen, with `reads: [target]` and `writes: [target]`. The loss must take soft targets.

    Args:
        shape: the place's shape without batch; any, and not needed.
        num_classes: K, filled in by the placement.
        alpha: > 0; 2 in the paper.
        places: what the modules of all places share; without it this module is the only place.

    Shapes: h (B, ...), target (B,) int64, (B, K) soft or None -> h' as h, t' (B, K) float32. Copies of the images (noisy_copies) are
    blended with copies, as their originals are. Raises ValueError for an alpha or num_classes out of range, or soft targets of another K.

    Differs from the authors' code in: the loss. Theirs is binary cross-entropy on the softmax, here it is the run's (`loss=ce`: soft
    cross-entropy). The blend and its labels are the code's; places of theirs: the images and the first two stages of a ResNet.
    """

    takes_label_sets = True

    def __init__(self, shape: tuple[int, ...], *, num_classes: int, alpha: float = 2.0, places: OnePlace | None = None) -> None:
        super().__init__()
        if not alpha > 0:
            raise ValueError(f"alpha must be above 0, got {alpha}")
        if num_classes < 1:
            raise ValueError(f"num_classes must be at least 1, got {num_classes}")
        self.num_classes, self.alpha = num_classes, alpha
        self.places = OnePlace() if places is None else places
        self.number = self.places.join()

    def forward(self, x: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if not self.training or target is None:
            return x, target
        if len(x) % len(target):
            check_labels(x, target)
        soft_BK = soft_labels(target, num_classes=self.num_classes)
        here, lam, partner_B = self.places.draw(self.number, len(target), alpha=self.alpha, device=x.device)
        lam = torch.where(here, lam, 1.0).to(x.dtype)
        # what noisy_copies appends is blended as its originals are
        rows = torch.cat([partner_B + start for start in range(0, len(x), len(target))])
        return blend(x, rows, lam), blend(soft_BK, partner_B, lam.float())

    def extra_repr(self) -> str:
        return f"alpha={self.alpha}, num_classes={self.num_classes}, place {self.number + 1} of {self.places.count}"


def blend(x: Tensor, partner_B: Tensor, lam: Tensor) -> Tensor:
    """lam x + (1 - lam) x[partner]; x itself, bit for bit, where lam is 1."""
    return torch.lerp(x[partner_B], x, lam)
