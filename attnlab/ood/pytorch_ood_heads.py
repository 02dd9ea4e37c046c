"""OOD heads on top of the detectors of pytorch-ood (https://github.com/kkirchheim/pytorch-ood): the one file that knows that library.

Legend: N samples, D features, K classes; B, C, H, W of images.

A detector that works on logits or pooled features needs no code, only a yaml:
    gen: {_target_: attnlab.ood.pytorch_ood_heads.PytorchOOD, detector: GEN, parameters: {gamma: 0.1}}
The classes below it are the common ones under their papers' parameters, with what the library leaves to its caller.

All of them: scores are float32 or float64, larger = more OOD; logits are taken in fp64 before any softmax, so that confident samples do not
tie at 1; matrix products are full fp32, whatever the run has set for training; a bank without what a head needs is a ValueError.
"""

import difflib
import inspect
import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.ood.bank import Bank, exact, pooled

log = logging.getLogger(__name__)

# the library's names of what a detector is fed, and the field of the bank that is it
VIEWS = {"logits": "logits", "features": "features", "feature_maps": "features"}
MODELS = ("model", "encoder", "backbone")  # constructor arguments that only the library's own passes over data need


class Adapter:
    """A pytorch-ood detector as a head. It is made when a bank is at hand, as some take the weights of the bank's final layer."""

    needs_fit = True
    dtype = torch.float32  # of features; several detectors keep fp32 state and cannot mix

    def __init__(self, detector: str, **parameters: Any) -> None:
        self.name, self.parameters = detector, parameters
        self.detector: Any = None

    def fit(self, bank: Bank) -> None:
        with exact(bank), torch.enable_grad():  # temperature scaling optimises
            self._make(bank)
            values = self.read(bank)
            getattr(self.detector, f"fit_{self.view}")(values, bank.labels.to(values.device))

    def score(self, bank: Bank) -> Tensor:
        if self.detector is None and self.needs_fit:
            raise ValueError(f"{self.name} must be fitted before it scores")
        with exact(bank), torch.no_grad():
            if self.detector is None:
                self._make(bank)
            return getattr(self.detector, f"predict_{self.view}")(self.read(bank)).detach()

    def read(self, bank: Bank) -> Tensor:
        """What the detector is fed."""
        if VIEWS[self.view] == "logits":
            return bank.logits.double()
        return pooled(bank, self.name).to(self.dtype)

    def _make(self, bank: Bank) -> None:
        import pytorch_ood.detector

        cls = getattr(pytorch_ood.detector, self.name)
        self.view = next(view for view in VIEWS if hasattr(cls, f"predict_{view}"))
        takes = inspect.signature(cls).parameters
        given = {name: None for name in MODELS if name in takes}
        if {"w", "b", "head"} & takes.keys():
            head = final_linear(bank, self.name).to(self.dtype)
            given |= {name: value for name, value in (("w", head.weight), ("b", head.bias), ("head", head)) if name in takes}
        self.detector = cls(**given, **self.parameters)


class PytorchOOD(Adapter):
    """Any detector of `pytorch_ood.detector` that a bank can feed, by name: Entropy, GEN, OpenMax, KLMatching, DICE, SHE, RMD, GMM, ...

    Args:
        detector: class name in `pytorch_ood.detector`. GMM is Gaussian discriminant analysis, one covariance a class (DDU, 2102.11582).
        parameters: its constructor's arguments. The model is not needed; `w`, `b` and `head` come from the bank's final layer.

    Raises ValueError: unknown detector or parameter (with the nearest name); a detector that needs the network itself or feature maps;
    a required parameter that is missing.
    """

    def __init__(self, *, detector: str, parameters: dict | None = None) -> None:
        import pytorch_ood.api
        import pytorch_ood.detector as library

        super().__init__(detector, **(parameters or {}))
        known = [name for name, value in vars(library).items() if inspect.isclass(value) and issubclass(value, pytorch_ood.api.Detector)]
        if detector not in known:
            raise ValueError(f"pytorch-ood has no detector {detector!r}; {_nearest(detector, known)}")
        cls = getattr(library, detector)
        if not any(hasattr(cls, f"predict_{view}") for view in VIEWS):
            raise ValueError(f"{detector} cannot work on logits or pooled features alone; a head can only use what a bank holds")
        filled = (*MODELS, "w", "b", "head")
        takes = {name: p for name, p in inspect.signature(cls).parameters.items() if name not in filled and p.kind != p.VAR_KEYWORD}
        if unknown := [name for name in self.parameters if name not in takes]:
            raise ValueError(f"{detector} has no parameter {unknown[0]!r}; {_nearest(unknown[0], list(takes))}")
        if missing := [name for name, p in takes.items() if p.default is p.empty and name not in self.parameters]:
            raise ValueError(f"{detector} needs the parameter {missing[0]!r}; give it under `parameters`")
        self.needs_fit = cls.requires_fit


class MSP(Adapter):
    """Maximum softmax probability (1610.02136): -max_k softmax(z / temperature)_k, in [-1, 0]."""

    needs_fit = False

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__("MaxSoftmax", t=_positive("temperature", temperature))


class MaxLogit(Adapter):
    """Maximum logit (1911.11132): -max_k z_k."""

    needs_fit = False

    def __init__(self) -> None:
        super().__init__("MaxLogit")


class Energy(Adapter):
    """Energy (2010.03759): -temperature * log sum_k exp(z_k / temperature).

    Raises ValueError: all energies are 0 up to rounding, because the logits are log-probabilities already (an ensemble's are).
    """

    needs_fit = False

    def __init__(self, *, temperature: float = 1.0) -> None:
        super().__init__("EnergyBased", t=_positive("temperature", temperature))

    def score(self, bank: Bank) -> Tensor:
        scores_N = super().score(bank)
        if (scores_N.abs() < 1e-5).all():  # only rounding would be ranked
            raise ValueError("the logits are log-probabilities (an ensemble's are), whose energy is 0 for every input; use msp or entropy")
        return scores_N


class ODIN(MSP):
    """ODIN (1706.02690): MSP at a high temperature T of images moved towards their predicted class.

    x' = x - eps * sign(grad_x CE(z(x) / T, argmax_k z_k(x))) / std;  score = -max_k softmax(z(x') / T)_k

    Args:
        temperature: T, the paper's 1000.
        eps: step in units of a pixel in [0, 1], the paper's 0.0014 for CIFAR. It was tuned on OOD data there; 0 is MSP at T.
        std: per-channel standard deviation by which the images were divided. None: eps is in units of the normalised image, a step of
            eps * std in pixels, four times smaller on CIFAR than the paper's.

    Differs from the official code in: the gradient is taken in fp32; as there, x' is not clipped to the range of images.
    """

    def __init__(self, *, temperature: float = 1000.0, eps: float = 0.0014, std: tuple[float, ...] | None = None) -> None:
        super().__init__(temperature=temperature)
        if eps < 0:
            raise ValueError(f"eps must be at least 0, got {eps}")
        if std is not None and min(std, default=0) <= 0:
            raise ValueError(f"std must be a positive number for each channel, got {list(std)}")
        self.temperature, self.eps, self.std = float(temperature), eps, std

    def perturb(self, network: nn.Module, x_BCHW: Tensor) -> Tensor:
        from pytorch_ood.detector import odin_preprocessing

        return odin_preprocessing(
            lambda x: network(x).logits.float(),
            x_BCHW,
            criterion=lambda z, y: F.cross_entropy(z, y, reduction="sum"),  # a mean only makes small gradients smaller
            eps=self.eps,
            temperature=self.temperature,
            norm_std=None if self.std is None else list(self.std),
        )


class KNN(Adapter):
    """Deep nearest neighbours (2204.06507): Euclidean distance to the k-th nearest training feature, exact.

    Args:
        k: 50, the paper's for CIFAR-10 (200 for CIFAR-100, 1000 for ImageNet). More than there are features: all, with a message.
        normalize: divide features by their norm first, as in the paper.
    """

    def __init__(self, *, k: int = 50, normalize: bool = True) -> None:
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        super().__init__("KNN", k=k, normalize=normalize)
        self.k = k

    def fit(self, bank: Bank) -> None:
        if len(bank) < self.k:
            log.warning("knn: k=%d is more than the %d training features; the farthest is taken", self.k, len(bank))
        self.parameters["k"] = min(self.k, len(bank))
        super().fit(bank)

    def read(self, bank: Bank) -> Tensor:
        return pooled(bank, "KNN").cpu().to(self.dtype)  # the search is scikit-learn's


class ViM:
    """Virtual-logit matching (2203.10807): alpha * |f's part outside the principal subspace| - log sum_k exp(z_k).

    f is centred at -W^+ b; the subspace is that of the `principal_dim` largest eigenvalues of the training features; alpha makes the mean
    norm on the training set the mean of the largest logit. z = W f + b of the final Linear.

    Args:
        principal_dim: dimension of the principal subspace. None: the paper's rule, 1000 for more than 1500 features, else 512; and where
            that leaves nothing (512 features or fewer) half of the features, our reading.

    Not the library's: it computes in fp32, where the part outside the subspace, a small difference of large numbers, is off by up to 2e-3;
    here everything is fp64.
    Raises ValueError: no final Linear; principal_dim outside [1, D - 1]; training features that have no part outside the subspace; score
    before fit.
    """

    def __init__(self, *, principal_dim: int | None = None) -> None:
        if principal_dim is not None and principal_dim < 1:
            raise ValueError(f"principal_dim must be at least 1, got {principal_dim}")
        self.principal_dim = principal_dim
        self.alpha: float | None = None

    def fit(self, bank: Bank) -> None:
        width = pooled(bank, "ViM").shape[1]
        dim = self.rule(width) if self.principal_dim is None else self.principal_dim
        if not 1 <= dim < width:
            raise ValueError(f"ViM's principal_dim must be in [1, {width - 1}] for {width} features, got {dim}")
        with exact(bank), torch.no_grad():
            self.fc = final_linear(bank, "ViM")
            bias_K = 0.0 if self.fc.bias is None else self.fc.bias
            self.origin_D = -(torch.linalg.pinv(self.fc.weight) @ (bias_K + self.fc.weight.new_zeros(len(self.fc.weight))))
            features_ND = bank.features.double()
            centred_ND = features_ND - self.origin_D
            self.outside_DR = torch.linalg.eigh(centred_ND.T @ centred_ND / len(bank))[1][:, : width - dim]
            norm = (centred_ND @ self.outside_DR).norm(dim=1).mean()
            if norm <= centred_ND.norm(dim=1).mean() * width * torch.finfo(torch.float64).eps:
                raise ValueError(f"the training features have no part outside their {dim} principal directions; lower principal_dim")
            self.alpha = float(self.fc(features_ND).amax(1).mean() / norm)

    def score(self, bank: Bank) -> Tensor:
        if self.alpha is None:
            raise ValueError("ViM must be fitted before it scores")
        with exact(bank), torch.no_grad():
            features_ND = pooled(bank, "ViM").double()
            virtual_N = self.alpha * ((features_ND - self.origin_D) @ self.outside_DR).norm(dim=1)
            return virtual_N - self.fc(features_ND).logsumexp(1)

    @staticmethod
    def rule(width: int) -> int:
        return 1000 if width > 1500 else 512 if width > 512 else width // 2


class ReAct(Adapter):
    """Rectified activations (2111.12797): the energy of the logits of min(f, c), c a quantile of all training activations.

    Args:
        percentile: the quantile as a fraction, the paper's 0.9.

    Raises ValueError: percentile outside [0, 1]; no final Linear.
    """

    dtype = torch.float64

    def __init__(self, *, percentile: float = 0.9) -> None:
        if not 0 <= percentile <= 1:
            raise ValueError(f"percentile must be a fraction in [0, 1], got {percentile}")
        super().__init__("ReAct", percentile=percentile)


@torch.no_grad()
def final_linear(bank: Bank, name: str) -> nn.Linear:
    """A copy of the bank's final layer in fp64, without whatever hangs on it; ValueError unless it makes the logits of the features."""
    fc, features_ND = bank.fc, pooled(bank, name)
    if not isinstance(fc, nn.Linear):
        what = "None" if fc is None else type(fc).__name__
        raise ValueError(f"{name} needs the weights of a final nn.Linear, and the bank's fc is {what}")
    if fc.in_features != features_ND.shape[1]:
        raise ValueError(f"{name}: the final layer takes {fc.in_features} features, and the bank holds {features_ND.shape[1]}")
    head = nn.utils.skip_init(nn.Linear, fc.in_features, fc.out_features, device=features_ND.device, dtype=torch.float64)
    head.requires_grad_(False)
    head.weight.copy_(fc.weight)
    head.bias.copy_(torch.zeros(fc.out_features) if fc.bias is None else fc.bias)
    some = slice(0, 64)
    away = (head(features_ND[some].double()) - bank.logits[some]).abs().max()
    # loose, as the logits may come from a bf16 product
    if head.out_features != bank.logits.shape[1] or away > 0.05 * bank.logits[some].abs().max() + 0.05:
        raise ValueError(f"{name}: the final layer does not map the features to the logits; something stands between or behind them")
    return head


def _positive(name: str, value: float) -> float:
    if not value > 0:
        raise ValueError(f"{name} must be above 0, got {value}")
    return float(value)


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"did you mean {', '.join(near)}?" if near else f"there are: {', '.join(known) or 'none'}"
