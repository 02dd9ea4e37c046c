"""Corruption robustness: accuracy on corrupted test images."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from attnlab.config.suggest import nearest
from attnlab.evaluation.corruptions import CORRUPTIONS
from attnlab.evaluation.trained import TEST, Trained
from attnlab.metrics import accuracy


class Corruption:
    """`corruption/<name>/acc`, the mean accuracy over severities, and `corruption/mean/acc` of all names (Hendrycks and Dietterich, arXiv
    1903.12261), on `num` test images (stratified) that are corrupted here; see `attnlab.evaluation.corruptions` for what they are.

        corruption/mce = mean_c E_c / E_c of the baseline,   E_c = 1 - corruption/<c>/acc

    Without a `baseline` nothing is divided: the unnormalised mCE, as it is reported of CIFAR-10-C, 1 - `corruption/mean/acc`.

    Args:
        names: of corruptions; empty: all 15. severities: of 1 to 5. num: images, >= 1.
        baseline: by corruption, the error in (0, 1] of the network that counts as 1 (the paper: an AlexNet on ImageNet), every name in it.

    The draws depend on the run's seed, the corruption and the severity alone. Raises ValueError: unknown names or severities; a baseline
    that lacks a name or has an error out of range; data that are no images, or whose images are neither grey nor RGB.
    """

    def __init__(
        self,
        *,
        names: Sequence[str] = (),
        severities: Sequence[int] = (1, 2, 3, 4, 5),
        num: int = 1000,
        baseline: Mapping[str, float] | None = None,
    ) -> None:
        if unknown := [name for name in names if name not in CORRUPTIONS]:
            raise ValueError(f"names: there is no corruption {unknown[0]!r}; {nearest(unknown[0], CORRUPTIONS)}")
        if not severities or not set(severities) <= {1, 2, 3, 4, 5} or num < 1:
            raise ValueError(f"severities are of 1 to 5 and num at least 1, got {list(severities)} and {num}")
        self.names, self.severities, self.num = list(names) or list(CORRUPTIONS), list(severities), num
        self.baseline = dict.fromkeys(self.names, 1.0) if baseline is None else dict(baseline)
        for name in self.names:
            if not 0 < self.baseline.get(name, 0) <= 1:
                raise ValueError(f"baseline must give an error in (0, 1] for {name}, got {self.baseline.get(name)}")

    def run(self, trained: Trained) -> dict[str, float]:
        _, images = trained.choice(TEST, self.num, seed=trained.seed)
        if images.images.ndim != 4 or images.shape[0] not in (1, 3):
            raise ValueError(f"corruptions are of grey or RGB images, and the data are {'x'.join(map(str, images.shape))}")
        pixels = images.images.permute(0, 2, 3, 1).numpy()
        found = {}
        for name in self.names:
            values = [self.accuracy(trained, pixels, images.labels, name, severity) for severity in self.severities]
            found[f"corruption/{name}/acc"] = sum(values) / len(values)
        errors = [(1 - found[f"corruption/{name}/acc"]) / self.baseline[name] for name in self.names]
        return {**found, "corruption/mean/acc": sum(found.values()) / len(found), "corruption/mce": sum(errors) / len(errors)}

    def accuracy(self, trained: Trained, pixels: np.ndarray, labels: torch.Tensor, name: str, severity: int) -> float:
        generator = np.random.default_rng([trained.seed, list(CORRUPTIONS).index(name), severity])
        corrupted = torch.from_numpy(CORRUPTIONS[name](pixels, severity, generator)).permute(0, 3, 1, 2)
        size, data, device = trained.data.eval_batch_size, trained.data, trained.settings.device
        bank = trained.extract((data.normalise(x).to(device), y) for x, y in zip(corrupted.split(size), labels.split(size)))
        return accuracy(bank.logits, bank.labels)
