"""Calibration: temperature scaling (Guo et al., 1706.04599) and how well the scaled confidences can be trusted.

Legend: N images, K classes.
"""

import logging
import math
from typing import Any

import torch
from torch import Tensor

from attnlab.evaluation.trained import TEST, Trained
from attnlab.metrics import adaptive_ece, aurc, classwise_ece, ece, nll, risk_at

log = logging.getLogger("attnlab")

COVERAGES = (80, 90, 95)  # percent
MOST = 10_000  # training images that a temperature is fitted on
STEEP = 2.0**60


def fit_temperature(logits: Any, labels: Any, *, tolerance: float = 1e-10) -> float:
    """The T > 0 that minimises the mean of -log softmax(z / T)[label] over logits z (N, K) and labels (N,) in [0, K).

    The NLL is strictly convex in b = 1 / T, so its derivative  d(b) = mean_n( sum_k p_k z_k - z_label ),  p = softmax(b z), has one root:
    bracketed, then by Newton's method with bisection where a step would leave the bracket, in fp64, until |dNLL / dlog T| = |b d(b)| is
    below `tolerance`. 0.0 if every label has its image's largest logit (the NLL falls as T does), inf if the logits say nothing of the
    labels (mean_n(z_label) at most the mean logit: the NLL falls as T grows).

    Raises ValueError: logits that are not finite or not (N, K), labels outside [0, K), no image.
    Differs from the authors' code in: solved to convergence; theirs stops after 50 steps of L-BFGS from T = 1.5.
    """
    z_NK, labels_N = torch.as_tensor(logits).detach().cpu().double(), torch.as_tensor(labels).detach().cpu()
    nll(z_NK, labels_N)  # checks them
    if not z_NK.isfinite().all():
        raise ValueError("logits must be finite for a temperature to be fitted")
    z_NK = z_NK - z_NK.gather(1, labels_N.long()[:, None])

    def derivatives(b: float) -> tuple[float, float]:
        p_NK = (b * z_NK).softmax(1)
        mean_N = (p_NK * z_NK).sum(1)
        return float(mean_N.mean()), float(((z_NK - mean_N[:, None]).square() * p_NK).sum(1).mean())

    if float(z_NK.amax(1).mean()) <= 0:
        return 0.0
    if float(z_NK.mean()) >= 0:
        return math.inf
    scale = 1 / float(z_NK.abs().max())
    low, high = scale, scale
    while derivatives(low)[0] >= 0 and low > scale / STEEP:
        low /= 2
    while derivatives(high)[0] <= 0 and high < scale * STEEP:
        high *= 2
    b = math.sqrt(low * high)
    for _ in range(500):
        first, second = derivatives(b)
        if abs(b * first) < tolerance:
            break
        low, high = (b, high) if first < 0 else (low, b)
        b = b - first / second if second > 0 else low
        if not low < b < high:
            b = (low + high) / 2
    return 1 / b


class Calibration:
    """Temperature scaling on held-out training images, never on the test images; then, of the test images at that temperature:

    `calibration/temperature`; `nll`; `ece` (15 equal bins; before it is `test/ece`), `adaptive_ece` (15 bins of equal mass),
    `classwise_ece`; `aurc`, `risk_at_80`, `risk_at_90`, `risk_at_95` (error rate among the most confident percent); see
    `attnlab.metrics`. The accuracy is that of `test/acc`. `figures/calibration.png`: reliability before and after.

    The temperature is fitted on the images of `val` where there are any (`data.val=0.1`), else on a stratified `fraction` of the training
    images (at most 10,000), unaugmented: the network was trained on these, so its confidence is better founded on them than on new images
    and the temperature is too low. If all of them are classified right, or no better than by chance, no temperature is best:
    `temperature` is NaN (null in the record), the rest is of the unscaled network, and the log says so.

    Args:
        fraction: in (0, 1]. seed: of the choice of training images.
    """

    def __init__(self, *, fraction: float = 0.2, seed: int = 0) -> None:
        if not 0 < fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], got {fraction}")
        self.fraction, self.seed = fraction, seed

    def run(self, trained: Trained) -> dict[str, float]:
        from attnlab import figures

        temperature = fit_temperature(*self.held_out(trained))
        logits, labels = trained.logits(TEST)
        logits = logits.double()
        if not 0 < temperature < math.inf:
            known = "all right" if temperature == 0 else "no better than by chance"
            log.warning("calibration: the held-out images are classified %s, so no temperature is best; data.val=0.1 holds out more", known)
            temperature = math.nan
        else:
            figures.temperature_scaling(logits, labels, temperature, path=trained.picture("calibration.png", "calibration"))
            logits = logits / temperature
        found = {
            "temperature": temperature,
            "nll": nll(logits, labels),
            "ece": ece(logits, labels, probs=False),
            "adaptive_ece": adaptive_ece(logits, labels),
            "classwise_ece": classwise_ece(logits, labels),
            "aurc": aurc(logits, labels),
            **{f"risk_at_{percent}": risk_at(logits, labels, percent / 100) for percent in COVERAGES},
        }
        return {f"calibration/{name}": value for name, value in found.items()}

    def held_out(self, trained: Trained) -> tuple[Tensor, Tensor]:
        """Logits and labels of the images that the temperature is fitted on."""
        if trained.data.has("val"):
            return trained.logits("val")
        number = len(trained.data.split("train"))
        _, images = trained.choice("train", min(MOST, max(1, round(self.fraction * number))), seed=self.seed)
        log.info("calibration: no val split (data.val=0.1): T is fitted on %d images that the network was trained on", len(images))
        size, device = trained.data.eval_batch_size, trained.settings.device
        batches = ((trained.data.normalise(x).to(device), y) for x, y in zip(images.images.split(size), images.labels.split(size)))
        bank = trained.extract(batches)
        return bank.logits.cpu(), bank.labels.cpu()
