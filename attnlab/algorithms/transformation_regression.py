"""Transformation regression: learn features by saying how an image was moved.   Shapes: B batch, C, H, W, D features."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.algorithms.supervised import Supervised
from attnlab.config.targets import ConfigError

if TYPE_CHECKING:
    from attnlab.network import Output
    from attnlab.training.epoch import Batch
    from attnlab.training.learner import Learner


def moved(x: Tensor, t_B4: Tensor, *, angle: float, shift: float, scale: float) -> Tensor:
    """Images under similarities, bilinear, reflected at the border. t in [-1, 1]: rotation by t_0 `angle` degrees about the centre, then
    translation by (t_1, t_2) `shift` in half images (right, down), magnification by (1 + `scale`)^t_3."""
    aspect = x.shape[2] / x.shape[3]  # the grid's units are half an image's height and half its width
    turn, zoom = t_B4[:, 0] * math.radians(angle), (1 + scale) ** -t_B4[:, 3]
    cos, sin = zoom * turn.cos(), zoom * turn.sin()
    right, down = -t_B4[:, 1] * shift, -t_B4[:, 2] * shift
    # from a place in the moved image back to the place in x
    across, along = sin * aspect, sin / aspect
    back_B23 = torch.stack([cos, across, cos * right + across * down, -along, cos, cos * down - along * right], 1).view(-1, 2, 3)
    grid = F.affine_grid(back_B23, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


class TransformationRegression(Supervised):
    """Our reading of Guo et al., "Image representation learning by transformation regression" (ICPR 2020), pretraining without labels: an
    image is turned, shifted and magnified by amounts t drawn uniformly from [-1, 1]^4, and a head on the features says by how much.

        L = mean_b |h(phi(T_t x_b)) - t_b|^2 / 4        the term `transformation`

    Established: continuous rotation, translation and scale by regression. Ours: the ranges, the linear head, reflection at the border.
    No label is used, and the final layer is not trained: accuracies are those of its start. A second run starts from the features,
    `init=teacher teacher=RUN`.

    Args:
        angle: degrees, in [0, 180). shift: in half images, in [0, 1). scale: >= 0, magnification by up to 1 + scale.

    Raises ValueError: a value out of range; vectors, which cannot be turned; a network without `features`. ConfigError: distillation,
    weight penalties.
    """

    takes_unlabelled = True

    takes_label_sets = False

    def __init__(self, shape: tuple[int, ...], dim: int, *, angle: float = 45.0, shift: float = 0.3, scale: float = 0.3) -> None:
        if not 0 <= angle < 180 or not 0 <= shift < 1 or not 0 <= scale < math.inf:
            raise ValueError(f"angle must be in [0, 180), shift in [0, 1) and scale 0 or more, got {angle}, {shift} and {scale}")
        if len(shape) != 3:
            raise ValueError(f"transformation_regression turns images, and there are vectors of shape {tuple(shape)}")
        self.ranges = {"angle": angle, "shift": shift, "scale": scale}
        self.peers = [nn.Linear(dim, 4)]

    def setup(self, learner: "Learner") -> None:
        super().setup(learner)
        self.head = learner.peers[0]
        if learner.optimizer and (further := [name for name, *_ in learner.loss_terms.further]):  # none: a network is only tested
            raise ConfigError(f"algorithm=transformation_regression has a loss of its own, which {further[0]} would be no part of; drop it")

    def terms(self, learner: "Learner", batch: "Batch", teacher: "Output | None") -> "tuple[dict[str, Tensor], Output]":
        t_B4 = 2 * torch.rand(len(batch.x), 4, device=batch.x.device) - 1
        out = learner.output(moved(batch.x, t_B4.to(batch.x.dtype), **self.ranges))
        if out.features is None:
            raise ValueError("transformation_regression reads features, and the network names no `features` place; choose another model")
        found_B4 = self.head(out.features.flatten(1))
        return {"transformation": F.mse_loss(found_B4.float(), t_B4), **learner.network.penalties()}, out
