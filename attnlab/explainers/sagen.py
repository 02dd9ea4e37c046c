"""SAGen, similar and adversarial generation (Charachon et al., 2012.07332).   Legend: B batch, C channels, H, W image size, K classes."""

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.explainers.attribution import logits_of, rows_a_pass, undisturbed
from attnlab.explainers.fitting import Batches, fit_module, training_images
from attnlab.explainers.two_headed_unet import TwoHeadedUNet

log = logging.getLogger("attnlab")


class Sagen:
    """map = mean over channels of |g_s(x) - g_a(x)|,  g_s(x) a similar image, which keeps the class, g_a(x) an adversarial one.

    The adversarial image loses the class. Both are heads of one U-Net, trained against the frozen network on the run's training images,
    unlabelled: with c the predicted class,

    L = similar * -log p_c(g_s) + adversarial * -log(1 - p_c(g_a)) + reconstruction * d(x, g_s) + difference * d(g_s, g_a)

    d = mean squared + mean absolute error, in units of normalised images. What reconstruction alone changes is in both images, so not in
    the map. Images are rotated, zoomed and flipped at random in training, which the paper reports to help every method.

    Needs `prepare(trained)` first, which trains the U-Net; then a map costs one pass of it. The maps are of the predicted class, whatever
    `target_B` says, and of the network that was given to `prepare`: class sensitivity is 1 and a randomised network changes nothing, by
    construction.

    Our reading: the paper has two classes; here "the other class" is any but the predicted one. Weights are of the same authors' later
    code (their MNIST settings) where it has them; `difference` is ours, as are a constant learning rate in place of a plateau schedule,
    and linear heads in place of images in [0, 1].

    Args:
        steps, batch_size, lr: of Adam. Their lr is 1e-4.
        similar, adversarial, reconstruction, difference: weights of the terms.
        rotation: at most, in degrees. min_zoom: uniform in [min_zoom, 1]. flip: mirror half of the images.
        widths: channels of the U-Net's levels.
        num_images: training images that are used at most, every class in proportion.
        seed: of the U-Net's start, of the order of images, of dropout and of the transforms.

    Raises ValueError: `explain` before `prepare`; sizes below 1, weights below 0; data that are no images.
    """

    def __init__(
        self,
        *,
        steps: int = 2000,
        batch_size: int = 64,
        lr: float = 1e-4,
        similar: float = 0.01,
        adversarial: float = 0.2,
        reconstruction: float = 10.0,
        difference: float = 1.0,
        rotation: float = 5.0,
        min_zoom: float = 0.8,
        flip: bool = True,
        widths: Sequence[int] = (16, 32, 64),
        num_images: int = 20000,
        seed: int = 0,
    ) -> None:
        if min(steps, batch_size - 1, num_images) < 1:
            raise ValueError(f"steps and num_images must be at least 1, batch_size at least 2, got {steps}, {num_images} and {batch_size}")
        weights = (similar, adversarial, reconstruction, difference, rotation)
        if not all(value >= 0 for value in weights) or not 0 < min_zoom <= 1 or not lr > 0:
            raise ValueError("weights of the terms and rotation must be at least 0, min_zoom in (0, 1], lr positive")
        self.steps, self.batch_size, self.lr, self.num_images, self.seed = steps, batch_size, lr, num_images, seed
        self.similar, self.adversarial, self.reconstruction, self.difference = similar, adversarial, reconstruction, difference
        self.rotation, self.min_zoom, self.flip, self.widths = rotation, min_zoom, flip, tuple(widths)
        self.generator: nn.Module | None = None

    def prepare(self, trained: Any) -> None:
        """Train the U-Net on the training images of `trained` (see `attnlab.evaluation.trained.Trained`), against its network."""
        self.fit(trained.network, *training_images(trained, self.num_images, who="SAGen"))

    def fit(self, network: nn.Module, batches: Batches, num: int) -> dict[str, float]:
        """Train the U-Net on `num` images. Returns shares of them: class `kept` by g_s, `flipped` by g_a."""

        def loss(unet: nn.Module, x_BCHW: Tensor, draws: torch.Generator) -> Tensor:
            return self.loss(network, unet, self.transformed(x_BCHW, draws))[0]

        def make(channels: int) -> TwoHeadedUNet:
            return TwoHeadedUNet(channels, self.widths)

        first = batches(torch.arange(min(num, 256)))
        with undisturbed(network, first.device.type):
            options = {"steps": self.steps, "batch_size": self.batch_size, "lr": self.lr, "seed": self.seed}
            self.generator = fit_module(make, loss, batches, num, **options)
            with torch.no_grad():
                _, found = self.loss(network, self.generator, first)
        shares = {name: float(share_B.double().mean()) for name, share_B in found.items()}
        log.info("sagen: the class is kept on %.0f%% and lost on %.0f%% of training images", 100 * shares["kept"], 100 * shares["flipped"])
        return shares

    def loss(self, network: nn.Module, unet: nn.Module, x_BCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """L, and by image whether g_s keeps the class and g_a loses it."""
        with torch.no_grad():
            class_B1 = logits_of(network, x_BCHW).argmax(1, keepdim=True)
        similar_BCHW, adversarial_BCHW = unet(x_BCHW)
        similar_BK, adversarial_BK = logits_of(network, similar_BCHW.clone()), logits_of(network, adversarial_BCHW.clone())
        others_BK = adversarial_BK.scatter(1, class_B1, -math.inf)
        terms = [
            self.similar * -similar_BK.log_softmax(1).gather(1, class_B1).mean(),
            self.adversarial * (adversarial_BK.logsumexp(1) - others_BK.logsumexp(1)).mean(),
            self.reconstruction * (F.mse_loss(similar_BCHW, x_BCHW) + F.l1_loss(similar_BCHW, x_BCHW)),
            self.difference * (F.mse_loss(similar_BCHW, adversarial_BCHW) + F.l1_loss(similar_BCHW, adversarial_BCHW)),
        ]
        kept_B, flipped_B = similar_BK.argmax(1) == class_B1[:, 0], adversarial_BK.argmax(1) != class_B1[:, 0]
        return sum(terms), {"kept": kept_B, "flipped": flipped_B}

    def transformed(self, x_BCHW: Tensor, draws: torch.Generator) -> Tensor:
        """Images rotated, zoomed in and mirrored at random; what comes from outside repeats the border."""
        angle_B = math.radians(self.rotation) * (2 * torch.rand(len(x_BCHW), generator=draws) - 1)
        zoom_B = self.min_zoom + (1 - self.min_zoom) * torch.rand(len(x_BCHW), generator=draws)
        mirror_B = torch.where((torch.rand(len(x_BCHW), generator=draws) < 0.5) & self.flip, -1.0, 1.0)
        cos_B, sin_B, zero_B = zoom_B * angle_B.cos(), zoom_B * angle_B.sin(), torch.zeros(len(x_BCHW))
        affine_B23 = torch.stack([cos_B * mirror_B, -sin_B, zero_B, sin_B * mirror_B, cos_B, zero_B], 1).view(-1, 2, 3).to(x_BCHW)
        grid_BHW2 = F.affine_grid(affine_B23, list(x_BCHW.shape), align_corners=False)
        return F.grid_sample(x_BCHW, grid_BHW2, mode="bilinear", padding_mode="border", align_corners=False)

    @torch.no_grad()
    def explain(self, network: nn.Module, x_BCHW: Tensor, target_B: Tensor) -> Tensor:
        """Maps (B, 1, H, W) >= 0 of the predicted class."""
        if self.generator is None:
            raise ValueError("SAGen is trained on the run's images first: call prepare(trained); the evaluator explanations does")
        maps, like = [], next(self.generator.parameters())
        with torch.autocast(x_BCHW.device.type, enabled=False):
            for x in x_BCHW.split(rows_a_pass(x_BCHW)):
                similar_BCHW, adversarial_BCHW = self.generator(x.to(like))
                maps.append((similar_BCHW - adversarial_BCHW).abs().mean(1, keepdim=True).to(x))
        return torch.cat(maps)
