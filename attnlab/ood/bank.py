"""Banks: what a network says of a data set, extracted in one pass and shared by all OOD heads; and the heads' evaluation on them.

Legend: B batch, N samples, C channels, H height, W width, D features, K classes.

An OOD head is any object with `fit(bank)` and `score(bank) -> s_N`, larger = more OOD. It may have
    perturb(network, x_BCHW) -> x_BCHW   the banks it gets are then extracted from perturbed images (gradients are on, autocast is off)
    needs_fit                            False: `fit` is not called, and the training data are not passed over for its sake (default: True)
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attnlab.metrics import ood_metrics

log = logging.getLogger(__name__)

Perturb = Callable[[nn.Module, Tensor], Tensor]
TEST, MEAN = "test", "mean"


@dataclass(frozen=True, eq=False)
class Bank:
    """Features (N, D), logits (N, K), labels (N,) of one data set, in its order, on one device.

    Features and logits are fp32: lower precision is cast up, fp64 stays. labels are int64, -1 for OOD samples. `fc` is the final layer,
    for heads that need its weights, or None. A network that names no `features` place has features of width 0.

    Raises ValueError: shapes that disagree, no sample, labels that are no integers, several devices.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor
    fc: nn.Module | None = None

    def __post_init__(self) -> None:
        shapes = f"features {tuple(self.features.shape)}, logits {tuple(self.logits.shape)}, labels {tuple(self.labels.shape)}"
        if (self.features.ndim, self.logits.ndim, self.labels.ndim) != (2, 2, 1):
            raise ValueError(f"a bank holds features (N, D), logits (N, K) and labels (N,), got {shapes}")
        if not len(self.features) == len(self.logits) == len(self.labels) > 0:
            raise ValueError(f"a bank needs as many features as logits as labels, and one at least, got {shapes}")
        if self.labels.is_floating_point():
            raise ValueError(f"labels of a bank must be class numbers, got {self.labels.dtype}")
        if len({self.features.device, self.logits.device, self.labels.device}) > 1:
            raise ValueError(f"a bank is on one device, got {self.features.device}, {self.logits.device} and {self.labels.device}")
        for name in ("features", "logits"):
            value = getattr(self, name)
            object.__setattr__(self, name, value.to(torch.promote_types(value.dtype, torch.float32)))
        object.__setattr__(self, "labels", self.labels.long())

    def __len__(self) -> int:
        return len(self.labels)


@contextmanager
def exact(bank: Bank) -> Iterator[None]:
    """Neither autocast nor TF32 nor bf16 inside fp32 matrix products: a distance is a small difference of large numbers."""
    products = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul)
    before = [product.fp32_precision for product in products]
    try:
        for product in products:
            product.fp32_precision = "ieee"
        with torch.autocast(bank.logits.device.type, enabled=False):
            yield
    finally:
        for product, precision in zip(products, before):
            product.fp32_precision = precision


def pooled(bank: Bank, name: str) -> Tensor:
    """The bank's features, for the head `name`. ValueError: there are none."""
    if bank.features.shape[1] == 0:
        raise ValueError(f"{name} works on features, and the network names no `features` place")
    return bank.features


class Evaluation(NamedTuple):
    """What `evaluate_heads` found: metrics by `ood/<head>/<set>/<metric>`; scores[head][set] on the CPU, set `test` being ID; errors by
    `<head>` (fit, perturbation), `<head>/<set>` (scores) or `<set>` (the data could not be read)."""

    metrics: dict[str, float]
    scores: dict[str, dict[str, Tensor]]
    errors: dict[str, str]


def extract(network: nn.Module, loader: Iterable, *, perturb: Perturb | None = None) -> Bank:
    """The bank of `loader`'s batches (x, y): `network(x) -> Output(logits, features, fc, ...)` in eval mode, without gradients.

    Features of any shape are flattened to (N, D). `perturb(network, x)` changes the images first. Every module is put back into the mode
    it was in. The loader must not augment or drop anything that the bank should hold. Raises ValueError if it gives no batch.
    """
    if perturb is None:
        return extract_views(network, loader, {})[0][None]
    banks, errors = extract_views(network, loader, {"perturbed": perturb}, plain=False)
    if errors:
        raise errors["perturbed"]
    return banks["perturbed"]


def extract_views(
    network: nn.Module, loader: Iterable, perturbs: Mapping[str, Perturb], *, plain: bool = True
) -> tuple[dict[str | None, Bank], dict[str, Exception]]:
    """As `extract`, for the plain images (key None, unless plain=False) and every perturbation in a single pass over `loader`.

    A perturbation that raises is left out of the banks and returned with its exception; the others go on.
    """
    parameter = next(network.parameters(), None)
    rows: dict[str | None, list[tuple[Tensor, Tensor]]] = {view: [] for view in (*[None] * plain, *perturbs)}
    labels: list[Tensor] = []
    errors: dict[str, Exception] = {}
    fc = None
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        # no_grad and not inference_mode: a head that perturbs takes gradients by the images
        with torch.no_grad():
            for x_BCHW, y_B, *_ in loader:
                if parameter is not None:
                    x_BCHW = x_BCHW.to(parameter.device, non_blocking=True)
                labels.append(y_B.to(_home(x_BCHW)))
                if plain:
                    out = network(x_BCHW)
                    fc = out.fc
                    rows[None].append(_row(out))
                for view in [view for view in perturbs if view not in errors]:
                    try:
                        with _for_gradients(x_BCHW):
                            moved_BCHW = perturbs[view](network, x_BCHW).detach()
                        out = network(moved_BCHW)
                        fc = out.fc
                        rows[view].append(_row(out))
                    except Exception as error:  # whatever one head's perturbation raises, the other heads' banks are not lost
                        errors[view] = error
    finally:
        for module, mode in modes.items():
            module.training = mode
    if not labels:
        raise ValueError("the loader gave no batch: there is nothing to extract")
    labels_N = torch.cat(labels)
    banks = {}
    for view, pairs in rows.items():
        if view not in errors:
            features, logits = zip(*pairs)
            banks[view] = Bank(torch.cat(features), torch.cat(logits), labels_N, fc)
    return banks, errors


@contextmanager
def _for_gradients(x: Tensor) -> Iterator[None]:
    # uncompiled: the gradient by the images in eval mode is a graph of its own, and compiling it costs more than it saves
    with torch.enable_grad(), torch.autocast(x.device.type, enabled=False), torch.compiler.set_stance("force_eager"):
        yield


def _row(out: Any) -> tuple[Tensor, Tensor]:
    """Features (B, D) and logits (B, K) of one batch. A copy, always: a compiled network may reuse the memory of its outputs."""
    features = out.logits[:, :0] if out.features is None else out.features.flatten(1)
    both = (features, out.logits)
    return tuple(value.detach().to(_home(value), torch.promote_types(value.dtype, torch.float32), copy=True) for value in both)


def _home(x: Tensor) -> torch.device:
    """Where banks of what was computed on x's device live: there, but for MPS, as heads compute in fp64 and MPS has none."""
    return torch.device("cpu") if x.device.type == "mps" else x.device


def evaluate_heads(
    network: nn.Module,
    heads: Mapping[str, Any],
    train_loader: Iterable | None,
    test_loader: Iterable,
    ood_loaders: Mapping[str, Iterable],
    *,
    test_bank: Bank | None = None,
) -> Evaluation:
    """Fit every head on the training set and score the ID test set (once) and every OOD set: one pass per data set for all heads.

    Metrics: `ood/<head>/<set>/auroc` and the others of `attnlab.metrics.ood_metrics`, each set against the whole ID test set, and with
    several sets their unweighted mean `ood/<head>/mean/auroc` ..., left out if a set is missing. A head that fails costs its own figures
    only, and an OOD set that cannot be read its own column: what was wrong is logged and in `errors`. What no head needs is not read;
    `test_bank`, the plain bank of the test set where it is at hand, spares another pass over it.

    Raises ValueError: a set named `test` or `mean`; and whatever the train and test loaders raise.
    """
    if taken := {TEST, MEAN} & set(ood_loaders):
        raise ValueError(f"an OOD set cannot be named {' or '.join(sorted(taken))}: the records use that name")
    errors: dict[str, str] = {}
    live = dict(heads)

    def note(key: str, error: Exception) -> None:
        errors[key] = f"{type(error).__name__}: {error}"
        log.warning("ood: %s failed: %s", key, errors[key])

    def drop(name: str, error: Exception, key: str) -> None:
        note(key, error)
        live.pop(name, None)

    to_fit = {name: head for name, head in heads.items() if getattr(head, "needs_fit", True)}
    if train_loader is None:
        banks, failed = {}, {name: ValueError("needs fitting, and there is no training data to fit it on") for name in to_fit}
    else:
        banks, failed = _banks(network, train_loader, to_fit)
    for name, error in failed.items():
        drop(name, error, name)
    for name, bank in banks.items():
        try:
            live[name].fit(bank)
        except Exception as error:
            drop(name, error, name)

    scores: dict[str, dict[str, Tensor]] = {}
    banks, failed = _banks(network, test_loader, live, plain=test_bank)
    for name, error in failed.items():
        drop(name, error, name)
    for name, bank in banks.items():
        try:
            scores[name] = {TEST: _score(live[name], bank)}
        except Exception as error:
            drop(name, error, f"{name}/{TEST}")

    metrics: dict[str, float] = {}
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in live}
    for set_name, loader in ood_loaders.items():
        try:
            banks, failed = _banks(network, loader, live)
        except Exception as error:
            note(set_name, error)
            continue
        for name, error in failed.items():
            note(f"{name}/{set_name}", error)
        for name, bank in banks.items():
            try:
                set_scores = _score(live[name], replace(bank, labels=torch.full_like(bank.labels, -1)))
                found[name][set_name] = ood_metrics(scores[name][TEST], set_scores)
                scores[name][set_name] = set_scores
            except Exception as error:
                note(f"{name}/{set_name}", error)

    for name, by_set in found.items():
        if len(by_set) == len(ood_loaders) > 1:
            by_set[MEAN] = {key: sum(values[key] for values in by_set.values()) / len(by_set) for key in next(iter(by_set.values()))}
        metrics |= {f"ood/{name}/{set_name}/{key}": value for set_name, values in by_set.items() for key, value in values.items()}
    return Evaluation(metrics, scores, errors)


def _banks(
    network: nn.Module, loader: Iterable, heads: Mapping[str, Any], *, plain: Bank | None = None
) -> tuple[dict[str, Bank], dict[str, Exception]]:
    """The bank that each head wants of a data set, from one pass, or none where `plain` serves all; and what perturbations raised."""
    perturbs = {name: head.perturb for name, head in heads.items() if hasattr(head, "perturb")}
    need_plain = plain is None and len(perturbs) < len(heads)
    views, failed = extract_views(network, loader, perturbs, plain=need_plain) if need_plain or perturbs else ({}, {})
    plain = views.get(None, plain)
    return {name: views[name] if name in perturbs else plain for name in heads if name not in failed}, failed


def _score(head: Any, bank: Bank) -> Tensor:
    scores_N = head.score(bank)
    if scores_N.shape != (len(bank),) or scores_N.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"score must give ({len(bank)},) numbers in float32 or float64, got {tuple(scores_N.shape)} in {scores_N.dtype}")
    if num_nan := int(scores_N.isnan().sum()):
        raise ValueError(f"{num_nan} of {len(bank)} scores are NaN")
    return scores_N.detach().cpu()
