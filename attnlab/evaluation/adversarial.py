"""Adversarial robustness: accuracy on images moved against the network.   Shapes: B batch, C channels, H, W."""

from collections.abc import Iterator

import torch
from torch import Tensor

from attnlab.evaluation.trained import TEST, Incomplete, Trained
from attnlab.losses.adversarial import fgsm, pgd
from attnlab.metrics import accuracy
from attnlab.ood.evaluate import evaluate_heads


class Adversarial:
    """`adversarial/fgsm_acc` and `adversarial/pgd_acc`: accuracy on `num` test images (stratified) under attacks that know the network.

    The attacks: `fgsm` and `pgd` from a uniformly random start, in the l-infinity ball of `epsilon`; moved images stay in the range of
    pixels (points, as of two_moons, have no range). An upper bound of the accuracy under attack: stronger attacks may find more.

    With `heads` also `adversarial/<head>/<attack>/auroc` and the other OOD metrics: how well the chosen OOD heads, fitted on the training
    images, tell the attacked images from the same images clean.

    Args:
        epsilon: radius, in units of pixels in [0, 1], > 0. The papers on CIFAR-10: 8/255.
        step: of PGD, > 0 (2/255). steps: of PGD, >= 1 (20). num: images, >= 1. heads: score the OOD heads too.

    Raises ValueError: a value out of range.
    """

    def __init__(self, *, epsilon: float = 8 / 255, step: float = 2 / 255, steps: int = 20, num: int = 1000, heads: bool = False) -> None:
        if not (epsilon > 0 and step > 0) or steps < 1 or num < 1:
            raise ValueError("epsilon and step must be above 0, steps and num at least 1")
        self.epsilon, self.step, self.steps, self.num, self.heads = epsilon, step, steps, num, heads

    def run(self, trained: Trained) -> dict[str, float]:
        data, device = trained.data, trained.settings.device
        _, images = trained.choice(TEST, self.num, seed=trained.seed)
        mean_C, std_C = (torch.tensor(moments, device=device).view(-1, *[1] * (images.images.ndim - 2)) for moments in data.moments())
        is_image = not images.images.is_floating_point()
        box = {"low": -mean_C / std_C, "high": (1 - mean_C) / std_C} if is_image else {}
        epsilon = self.epsilon / std_C

        def batches(attack: str) -> Iterator[tuple[Tensor, Tensor]]:
            for pixels, y in zip(images.images.split(data.eval_batch_size), images.labels.split(data.eval_batch_size)):
                x, y = data.normalise(pixels).to(device), y.to(device)
                if attack == "fgsm":
                    moved = fgsm(trained.network, x, y, epsilon=epsilon)
                    yield (moved.clamp(box["low"], box["high"]) if box else moved), y
                else:
                    start = epsilon * (2 * torch.rand(x.shape).to(x) - 1)
                    yield pgd(trained.network, x, y, epsilon=epsilon, step=self.step / std_C, steps=self.steps, start=start, **box), y

        found, attacked = {}, {attack: list(batches(attack)) for attack in ("fgsm", "pgd")}
        for attack, moved in attacked.items():
            bank = trained.extract(moved)
            found[f"adversarial/{attack}_acc"] = accuracy(bank.logits, bank.labels)
        if self.heads and trained.heads:
            pairs = zip(images.images.split(data.eval_batch_size), images.labels.split(data.eval_batch_size))
            clean = [(data.normalise(pixels).to(device), y.to(device)) for pixels, y in pairs]
            known = {"train": trained.banks["train"]} if "train" in trained.banks else {}
            with trained.settings.autocast():
                scored = evaluate_heads(trained.network, trained.heads, trained.loader("train"), clean, attacked, banks=known)
            found |= {key.replace("ood/", "adversarial/", 1): value for key, value in scored.metrics.items() if "/mean/" not in key}
            if scored.errors:
                raise Incomplete("; ".join(f"ood.{name}: {message}" for name, message in scored.errors.items()), found)
        return found
