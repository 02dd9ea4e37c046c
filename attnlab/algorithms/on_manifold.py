"""On-manifold adversarial augmentation: images on the way from one class to another.   Shapes: B batch, Z code, K classes."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.algorithms.autoencoder import Decoder, Encoder
from attnlab.algorithms.supervised import Supervised
from attnlab.config.targets import ConfigError

if TYPE_CHECKING:
    from attnlab.network import Output
    from attnlab.training.epoch import Batch
    from attnlab.training.learner import Learner


class OnManifold(Supervised):
    """On-manifold adversarial data augmentation, OMADA (Patel et al., arXiv 1912.07458), in our reading: codes of the images are moved
    against a classifier of codes, decoded, and learned from with that classifier's own soft labels.

        reconstruction:  mean |D(E(x)) - x|^2          latent_ce:  CE(c(E(x)), y)             they train E, D and c alone
        z_0 = E(x),  z_{i+1} = z_i - rate g_i / |g_i|,  g_i = grad CE(c(z_i), t),  t != y random;  i random in 0..steps for each image
        generated_...:  weight L(f(D(z_i)), softmax(c(z_i)))       from `start` on

    Established: paths in a code space towards another class, past the boundary, decoded, with the code classifier's soft labels. Ours: a
    small autoencoder trained beside the network in place of a generative model (BiGAN), one uniform draw of a point of the path, the
    values. steps=0 is the control: decoded images of the codes themselves.

    Args:
        code: Z. width: channels of the autoencoder. rate: length of a step of the path, > 0. steps: >= 0. weight: >= 0.
        start: fraction of the epochs before which nothing is generated, in [0, 1).

    Raises ValueError: out of range; vectors. ConfigError: a loss without soft labels; components that rewrite labels; a teacher. A step
    costs two.
    """

    eager = True

    takes_label_sets = False

    def __init__(
        self,
        shape: tuple[int, ...],
        num_classes: int,
        *,
        code: int = 64,
        width: int = 32,
        rate: float = 0.5,
        steps: int = 10,
        weight: float = 1.0,
        start: float = 0.3,
    ) -> None:
        if min(code, width) < 1 or not rate > 0 or steps < 0 or not weight >= 0 or not 0 <= start < 1:
            raise ValueError("code and width must be at least 1, rate above 0, steps and weight 0 or more, start in [0, 1)")
        self.peers = [Encoder(shape, code, width=width), Decoder(shape, code, width=width), nn.Linear(code, num_classes)]
        self.num_classes, self.rate, self.steps, self.weight, self.start = num_classes, rate, steps, weight, start

    def setup(self, learner: "Learner") -> None:
        super().setup(learner)
        self.encoder, self.decoder, self.classifier = learner.peers
        if not getattr(learner.loss, "soft_targets", False):
            raise ConfigError(f"algorithm=on_manifold makes soft labels, which loss {type(learner.loss).__name__} cannot take; use loss=ce")
        if writers := [placement.name for placement in learner.network.placed.placements if placement.writes]:
            raise ConfigError(f"{writers[0]} mixes labels, and algorithm=on_manifold's own are soft already; drop one of them")
        if learner.optimizer and "teacher" in learner.asks:  # none: a trained network is only tested
            who = learner.loss_terms.who_asks("teacher")
            raise ConfigError(
                f"algorithm=on_manifold has images of its own, which the teacher does not see and {who} would compare; drop one of them"
            )

    def terms(self, learner: "Learner", batch: "Batch", teacher: "Output | None") -> "tuple[dict[str, Tensor], Output]":
        terms, out = super().terms(learner, batch, teacher)
        z_BZ = self.encoder(batch.x)
        terms["reconstruction"] = F.mse_loss(self.decoder(z_BZ).float(), batch.x.float())
        terms["latent_ce"] = F.cross_entropy(self.classifier(z_BZ).float(), batch.y)
        epoch = learner.totals.steps // learner.steps_per_epoch  # a term comes with an epoch, whose sums have one entry a term
        if epoch >= self.start * learner.settings.max_epochs:
            x, soft_BK = self.generate(z_BZ.detach(), batch.y)
            made = learner.terms(learner.output(x, soft_BK), batch._replace(x=x, y=soft_BK), teacher)
            terms |= {f"generated_{name}": self.weight * value for name, value in made.items()}
        return terms, out

    def generate(self, z_BZ: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Images and soft labels (B, K) of a point of each path; neither has a gradient."""
        target = (y + torch.randint(1, self.num_classes, y.shape, device=y.device)) % self.num_classes
        length = torch.randint(self.steps + 1, (len(y), 1), device=y.device)
        with torch.enable_grad():
            for i in range(self.steps):
                z_BZ = z_BZ.detach().requires_grad_()
                loss = F.cross_entropy(self.classifier(z_BZ).float(), target, reduction="sum")
                (slope_BZ,) = torch.autograd.grad(loss, z_BZ)
                z_BZ = z_BZ - self.rate * (i < length) * F.normalize(slope_BZ, dim=1)
        with torch.no_grad():
            return self.decoder(z_BZ), self.classifier(z_BZ).float().softmax(1)
