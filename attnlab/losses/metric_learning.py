"""Margins between proxies of the classes on the sphere, pytorch-metric-learning's; the one place where that library is named."""
# B batch, D features, K classes

import importlib.util
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from attnlab.network import Output

PAPERS = {"arcface": 0.5, "cosface": 0.35}  # the margins


def check_library(kind: str) -> None:
    """Raise ValueError, in a line that says what to do, where the library is not installed. Nothing is imported."""
    if importlib.util.find_spec("pytorch_metric_learning") is None:
        raise ValueError(f'{kind} needs pytorch-metric-learning, which is not installed: pip install -e ".[metric]"')


def probe(out: "Output", y: Tensor) -> Tensor:
    """Cross-entropy of the final Linear on features that get no gradient of it: it predicts, and the metric alone shapes the features."""
    dtype = torch.promote_types(out.features.dtype, torch.float32)
    bias = None if out.fc.bias is None else out.fc.bias.to(dtype)
    return F.cross_entropy(F.linear(out.features.detach().to(dtype), out.fc.weight.to(dtype), bias), y)


def check_features(out: "Output", y: Tensor, *, dim: int, name: str) -> None:
    """ValueError: soft labels, or features of another width than `dim`."""
    if y.ndim != 1 or y.is_floating_point():
        raise ValueError(f"{name} needs class numbers as labels: it does not go with mixup, cutmix or other soft labels")
    if out.features is None or out.features.shape[1:] != (dim,):
        got = "no place `features`" if out.features is None else f"features of shape {tuple(out.features.shape[1:])}"
        raise ValueError(f"{name} was built for {dim} features before the final Linear; the network has {got}")


class ProxyMargin(nn.Module):
    """ArcFace (arXiv 1801.07698) or CosFace (arXiv 1801.09414) of the features, and a classifier on them.

        c_k = cos(f, w_k),  w_k learnt proxies
        arcface: c_y <- cos(acos(c_y) + margin), monotone beyond pi;   cosface: c_y <- c_y - margin
        {"metric": weight cross-entropy(scale c, y),  "ce": cross-entropy(fc(stop-gradient f), y)}

    Proxies, cosines and margins are pytorch-metric-learning's (extra `metric`); picking each image's own cosine is done here, as the
    library's mask waits for the device. The proxies are parameters of the loss, trained, saved and resumed with it. Predictions are made by
    `fc`, a probe that leaves the features to the metric (ours; the papers compare features, or predict by the proxies).

    kind: arcface or cosface. margin: in radians, in [0, pi), or in cosines, >= 0; None: the paper's .5 and .35. scale: > 0. weight: >= 0.
    Labels are class numbers. Raises ValueError: the library is not installed; a value out of range; soft labels; no features.
    """

    soft_targets = False
    needs_fc = True
    takes_copies = False

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        kind: Literal["arcface", "cosface"] = "arcface",
        margin: float | None = None,
        scale: float = 64.0,
        weight: float = 1.0,
    ):
        super().__init__()
        if kind not in PAPERS:
            raise ValueError(f"kind must be arcface or cosface, got {kind!r}")
        margin = PAPERS[kind] if margin is None else margin
        if not 0 <= margin < (torch.pi if kind == "arcface" else float("inf")):
            raise ValueError(f"margin must be at least 0, and below pi for arcface, got {margin}")
        if not scale > 0 or not weight >= 0:
            raise ValueError(f"scale must be above 0 and weight at least 0, got {scale} and {weight}")
        check_library(f"loss {kind}")
        from pytorch_metric_learning import losses

        made = {"arcface": losses.ArcFaceLoss, "cosface": losses.CosFaceLoss}[kind]
        degrees = margin * 180 / torch.pi if kind == "arcface" else margin
        self.margins = made(num_classes=num_classes, embedding_size=dim, margin=degrees, scale=scale)
        self.kind, self.weight, self.dim = kind, weight, dim

    def forward(self, out: "Output", y: Tensor) -> dict[str, Tensor]:
        check_features(out, y, dim=self.dim, name=self.kind)
        with torch.autocast(y.device.type, enabled=False):
            f_BD = out.features.to(torch.promote_types(out.features.dtype, torch.float32))
            cosine_BK = F.normalize(f_BD) @ F.normalize(self.margins.W.to(f_BD.dtype), dim=0)
            own_B = cosine_BK.gather(1, y[:, None])[:, 0]
            logits_BK = cosine_BK.scatter(1, y[:, None], self.margins.modify_cosine_of_target_classes(own_B)[:, None])
            metric = F.cross_entropy(self.margins.scale_logits(logits_BK, f_BD), y)
            return {"metric": self.weight * metric, "ce": probe(out, y)}
