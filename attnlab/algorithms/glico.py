"""GLICO: a code for every training image, and learning from images between two codes of a class.   Shapes: B batch, N images, Z code."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.algorithms.autoencoder import Decoder
from attnlab.algorithms.supervised import Supervised
from attnlab.config.targets import ConfigError

if TYPE_CHECKING:
    from attnlab.network import Output
    from attnlab.training.epoch import Batch
    from attnlab.training.learner import Learner

SHARES = (0.1, 0.2, 0.3, 0.4)  # of the way to the other image


def slerp(a_BZ: Tensor, b_BZ: Tensor, t: Tensor | float) -> Tensor:
    """The point at share t of the great circle from unit vectors a to unit vectors b."""
    angle_B1 = (a_BZ * b_BZ).sum(1, keepdim=True).clamp(-1 + 1e-6, 1 - 1e-6).acos()
    return (((1 - t) * angle_B1).sin() * a_BZ + (t * angle_B1).sin() * b_BZ) / angle_B1.sin()


def partners(y: Tensor) -> Tensor:
    """For every image of a batch (B,) a random other one of its class; itself where there is none."""
    score_BB = torch.rand(len(y), len(y), device=y.device) + 1
    score_BB = score_BB * (y[:, None] == y)  # others of the class in (1, 2), the rest 0
    return score_BB.fill_diagonal_(0.5).argmax(1)


class GLICO(Supervised):
    """Generative latent implicit conditional optimization for few images (Azuri and Weinshall, arXiv 2003.14297), in our reading: a
    code z_n on the unit sphere for every training image, and a generator G, trained beside the network f:

        generator:    mean |G(z_n + e) - x_n|_1,   e ~ N(0, noise^2 I)         generator_ce:  gamma L(f(G(z_n + e)), y_n)
        from `start` on, a batch is with probability 1/2 replaced by G(slerp(z_n, z_m; t)) with the labels y_n,
        m another image of the class in the batch, t one of 0.1, 0.2, 0.3, 0.4, one a batch

    Established (authors' code): all of this, with 512-d codes, gamma 0.5. Ours: one training instead of two after each other, G a small
    decoder, noise added to the code in place of a second code, no loss on a pretrained VGG's features, one optimizer for all
    (`optimizer.groups={peers.**: {lr: ...}}` does not reach it: rates are the network's).

    Args:
        code: Z. width: channels of the decoder. noise, gamma: >= 0. start: fraction of the epochs in [0, 1).

    Raises ValueError: out of range; vectors. ConfigError: components that rewrite labels; a teacher. A step costs two. Images that are
    cropped and mirrored at random have one code all the same: G then gives their mean.
    """

    takes_label_sets = False

    def __init__(
        self,
        shape: tuple[int, ...],
        train_size: int,
        *,
        code: int = 512,
        width: int = 32,
        noise: float = 0.15,
        gamma: float = 0.5,
        start: float = 0.3,
    ) -> None:
        if min(code, width) < 1 or not (noise >= 0 and gamma >= 0) or not 0 <= start < 1:
            raise ValueError("code and width must be at least 1, noise and gamma 0 or more, start in [0, 1)")
        self.peers = [nn.Embedding(train_size, code), Decoder(shape, code, width=width)]
        self.noise, self.gamma, self.start = noise, gamma, start
        self.asks = ("index",)

    def setup(self, learner: "Learner") -> None:
        super().setup(learner)
        self.codes, self.decoder = learner.peers
        if writers := [placement.name for placement in learner.network.placed.placements if placement.writes]:
            raise ConfigError(f"{writers[0]} mixes labels, and algorithm=glico's images have those of one class; drop one of them")
        if learner.optimizer and "teacher" in learner.asks:  # none: a trained network is only tested
            who = learner.loss_terms.who_asks("teacher")
            raise ConfigError(
                f"algorithm=glico has images of its own, which the teacher does not see and {who} would compare; drop one of them"
            )

    def terms(self, learner: "Learner", batch: "Batch", teacher: "Output | None") -> "tuple[dict[str, Tensor], Output]":
        z_BZ = F.normalize(self.codes(batch.index), dim=1)
        made = self.decoder(z_BZ + self.noise * torch.randn_like(z_BZ))
        generator = F.l1_loss(made.float(), batch.x.float())
        judged = learner.terms(learner.output(made, batch.y), batch._replace(x=made), teacher)
        x, epoch = batch.x, learner.totals.steps // learner.steps_per_epoch
        if epoch >= self.start * learner.settings.max_epochs:
            x = self.between(z_BZ.detach(), batch)
        terms, out = super().terms(learner, batch._replace(x=x), teacher)
        return {**terms, "generator": generator, **{f"generator_{name}": self.gamma * value for name, value in judged.items()}}, out

    @torch.no_grad()
    def between(self, z_BZ: Tensor, batch: "Batch") -> Tensor:
        """The batch's images or, for every second batch, images between two of a class."""
        device = z_BZ.device
        t = torch.tensor(SHARES, device=device)[torch.randint(len(SHARES), (1,), device=device)]
        made = self.decoder(slerp(z_BZ, z_BZ[partners(batch.y)], t)).to(batch.x.dtype)
        return torch.where(torch.rand((), device=device) < 0.5, made, batch.x)
