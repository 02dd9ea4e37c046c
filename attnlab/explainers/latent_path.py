"""Examples on a path between two classes (our reading of Ojeda Marin et al., ICPR 2020).

Legend: B batch, C channels, H, W image size, K classes, D latent dimensions, T points of a path.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attnlab.explainers.attribution import logits_of, rows_a_pass, undisturbed
from attnlab.explainers.fitting import Batches, fit_module, training_images
from attnlab.explainers.small_vae import SmallVAE


class Path(NamedTuple):
    """images_BTCHW: decoded points of the path; p_BTK: the network's softmax probabilities on them; other_B: the class it leads to."""

    images_BTCHW: Tensor
    p_BTK: Tensor
    other_B: Tensor


class LatentPath:
    """map = sum_t max(p_c(x_t) - p_c(x_{t+1}), 0) * mean over channels |x_{t+1} - x_t|,  x_t = dec(z_t).

    What changes in the image where the class is lost: z_0 encodes the image, z_T is the mean code of the likeliest other class; the points
    between minimise  sum_t |dec(z_{t+1}) - dec(z_t)|^2 + entropy * sum_t H(f(dec(z_t)))  from the straight line, by Adam: a short path
    through images that the network is sure of, so that the decision changes in few steps. enc and dec are those of a small VAE, trained by
    `prepare(trained)` on the run's training images, unlabelled; f is the network's softmax; a class's mean code is of the images which f
    gives the class.
    `path` gives the examples themselves, which are the explanation that the paper is about; the map is ours. Maps are >= 0.

    Our reading: the paper's "semantic Lagrangian" over stochastic paths is not known to us. An experiment: the maps are of what the VAE
    can draw, so they are no better than its images.

    Args:
        steps, batch_size, lr: of the VAE's training. num_latent: D. beta: weight of its KL term.
        num_points: T + 1 points of a path. path_steps, path_lr: of its Adam. entropy: weight of H.
        num_images: training images that are used at most. seed: of the VAE's training; paths draw nothing.

    Raises ValueError: `explain` before `prepare`; sizes below 1 (num_points below 3); data that are no images, or of one predicted class.
    """

    def __init__(
        self,
        *,
        steps: int = 2000,
        batch_size: int = 64,
        lr: float = 1e-3,
        num_latent: int = 16,
        beta: float = 1.0,
        num_points: int = 9,
        path_steps: int = 50,
        path_lr: float = 0.05,
        entropy: float = 1.0,
        num_images: int = 20000,
        seed: int = 0,
    ) -> None:
        if min(steps, batch_size - 1, num_latent, num_points - 2, num_images) < 1 or path_steps < 0:
            raise ValueError(
                "steps, num_latent and num_images must be at least 1, batch_size at least 2, num_points at least 3, path_steps at least 0"
            )
        if not (lr > 0 and path_lr > 0 and beta >= 0 and entropy >= 0):
            raise ValueError("lr and path_lr must be positive, beta and entropy at least 0")
        self.steps, self.batch_size, self.lr, self.num_latent, self.beta, self.seed = steps, batch_size, lr, num_latent, beta, seed
        self.num_points, self.path_steps, self.path_lr, self.entropy = num_points, path_steps, path_lr, entropy
        self.num_images = num_images
        self.vae: SmallVAE | None = None
        self.codes_KD = torch.empty(0)

    def prepare(self, trained: Any) -> None:
        """Train the VAE on the training images of `trained` (see `attnlab.evaluation.trained.Trained`)."""
        self.fit(trained.network, *training_images(trained, self.num_images, who="LatentPath"))

    def fit(self, network: nn.Module, batches: Batches, num: int) -> None:
        """Train the VAE on `num` images; the mean code of every class that the network predicts for one of them, NaN for the others."""
        first = batches(torch.arange(1))

        def loss(vae: nn.Module, x_BCHW: Tensor, draws: torch.Generator) -> Tensor:
            return vae.loss(x_BCHW, beta=self.beta)

        with undisturbed(network, first.device.type):
            options = {"steps": self.steps, "batch_size": self.batch_size, "lr": self.lr, "seed": self.seed}
            self.vae = fit_module(lambda channels: SmallVAE(tuple(first.shape[1:]), self.num_latent), loss, batches, num, **options)
            parts = []
            with torch.no_grad():
                for index_B in torch.arange(num).split(rows_a_pass(first)):
                    x_BCHW = batches(index_B)
                    parts.append((self.vae.encode(x_BCHW)[0], logits_of(network, x_BCHW)))
        codes_ND, logits_NK = (torch.cat(values) for values in zip(*parts))
        member_NK = torch.nn.functional.one_hot(logits_NK.argmax(1), logits_NK.shape[1]).to(codes_ND)
        self.codes_KD = member_NK.T @ codes_ND / member_NK.sum(0)[:, None]
        if (num_classes := int((~self.codes_KD.isnan().any(1)).sum())) < 2:
            raise ValueError(
                f"LatentPath needs images of two predicted classes, and the network predicts {num_classes} of the training images"
            )

    def path(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Path:
        """From every image to the likeliest class other than `target_B`."""
        if self.vae is None:
            raise ValueError("LatentPath is fitted to the run's images first: call prepare(trained); the evaluator explanations does")
        like, parts = next(self.vae.parameters()), []
        with undisturbed(network, x_BCHW.device.type):
            for x, target in zip(x_BCHW.split(rows := max(1, rows_a_pass(x_BCHW) // self.num_points)), target_B.split(rows)):
                parts.append(self._path(network, x.to(like), target))
        return Path(*(torch.cat(values) for values in zip(*parts)))

    def _path(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Path:
        along_T = torch.linspace(0, 1, self.num_points, device=x_BCHW.device, dtype=x_BCHW.dtype)[:, None]
        with torch.no_grad():
            refused_BK = torch.nn.functional.one_hot(target_B, len(self.codes_KD)).bool() | self.codes_KD.isnan().any(1)
            other_B = logits_of(network, x_BCHW).masked_fill(refused_BK, -torch.inf).argmax(1)
            start_BD, end_BD = self.vae.encode(x_BCHW)[0], self.codes_KD[other_B]
            line_BTD = start_BD[:, None] + along_T * (end_BD - start_BD)[:, None]
        inner_BTD = line_BTD[:, 1:-1].clone().requires_grad_()
        adam = torch.optim.Adam([inner_BTD], lr=self.path_lr)
        for _ in range(self.path_steps):
            with torch.enable_grad():
                images, log_p = self._decoded(network, torch.cat([line_BTD[:, :1], inner_BTD, line_BTD[:, -1:]], 1))
                lagrangian = images.diff(dim=1).square().sum() - self.entropy * (log_p.exp() * log_p).sum()
                inner_BTD.grad = torch.autograd.grad(lagrangian, inner_BTD)[0]
            adam.step()
        with torch.no_grad():
            images, log_p = self._decoded(network, torch.cat([line_BTD[:, :1], inner_BTD, line_BTD[:, -1:]], 1))
        return Path(images, log_p.exp(), other_B)

    def _decoded(self, network: nn.Module, z_BTD: Tensor) -> tuple[Tensor, Tensor]:
        images = self.vae.decode(z_BTD.flatten(0, 1))
        log_p = logits_of(network, images.clone()).log_softmax(1)  # a copy: the first module may work in place
        return images.unflatten(0, z_BTD.shape[:2]), log_p.unflatten(0, z_BTD.shape[:2])

    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        """Maps (B, 1, H, W) >= 0."""
        images_BTCHW, p_BTK, _ = self.path(network, x_BCHW, target_B)
        p_BT = p_BTK.gather(2, target_B[:, None, None].expand(-1, p_BTK.shape[1], 1))[..., 0]
        lost_BT = -p_BT.diff(dim=1).clamp(max=0)
        return torch.einsum("bt,bthw->bhw", lost_BT, images_BTCHW.diff(dim=1).abs().mean(2))[:, None].to(x_BCHW)
