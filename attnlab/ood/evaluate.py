"""OOD heads fitted and scored, one pass over each data set for all of them.

Legend: B batch, N samples, C channels, H height, W width, D features, K classes.

An OOD head is any object with `fit(bank)` and `score(bank) -> s_N`, larger = more OOD. It may have
    perturb(network, x_BCHW) -> x_BCHW   the banks it gets are then extracted from perturbed images (gradients are on, autocast is off)
    describe(network, x_BCHW) -> f_BD    the banks it gets then have these features of the images in place of the network's
    needs_fit                            False: `fit` is not called, and the training data are not passed over for its sake (default: True)
"""

import logging
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from attnlab.metrics import ood_metrics
from attnlab.ood.bank import Bank
from attnlab.ood.extract import extract_views

log = logging.getLogger(__name__)

TRAIN, TEST, MEAN = "train", "test", "mean"


class HeadResults(NamedTuple):
    """What `evaluate_heads` found: metrics by `ood/<head>/<set>/<metric>`; scores[head][set] on the CPU, set `test` being ID; errors by
    `<head>` (fit, perturbation), `<head>/<set>` (scores) or `<set>` (the data could not be read)."""

    metrics: dict[str, float]
    scores: dict[str, dict[str, Tensor]]
    errors: dict[str, str]


def evaluate_heads(
    network: nn.Module,
    heads: Mapping[str, Any],
    train_loader: Iterable | None,
    test_loader: Iterable,
    ood_loaders: Mapping[str, Iterable],
    *,
    banks: MutableMapping[str, Bank] | None = None,
) -> HeadResults:
    """Fit every head on the training set and score the ID test set (once) and every OOD set: one pass per data set for all heads.

    Metrics: `ood/<head>/<set>/auroc` and the others of `attnlab.metrics.ood_metrics`, each set against the whole ID test set, and with
    several sets their unweighted mean `ood/<head>/mean/auroc` ..., left out if a set is missing. A head that fails costs its own metrics
    only, and an OOD set that cannot be read its own column: what was wrong is logged and in `errors`. What no head needs is not read.
    `banks` holds plain banks that are at hand, by `train`, `test` or the OOD set's name: they spare their pass, and those extracted here
    are added to it.

    Raises ValueError: an OOD set named `train`, `test` or `mean`; and whatever the train and test loaders raise.
    """
    if taken := {TRAIN, TEST, MEAN} & set(ood_loaders):
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
        found_banks, failed = {}, {name: ValueError("needs fitting, and there is no training data to fit it on") for name in to_fit}
    else:
        found_banks, failed = _banks(network, train_loader, to_fit, TRAIN, banks)
    for name, error in failed.items():
        drop(name, error, name)
    for name, bank in found_banks.items():
        try:
            live[name].fit(bank)
        except Exception as error:
            drop(name, error, name)

    scores: dict[str, dict[str, Tensor]] = {}
    found_banks, failed = _banks(network, test_loader, live, TEST, banks)
    for name, error in failed.items():
        drop(name, error, name)
    for name, bank in found_banks.items():
        try:
            scores[name] = {TEST: _score(live[name], bank)}
        except Exception as error:
            drop(name, error, f"{name}/{TEST}")

    metrics: dict[str, float] = {}
    found: dict[str, dict[str, dict[str, float]]] = {name: {} for name in live}
    for set_name, loader in ood_loaders.items():
        try:
            found_banks, failed = _banks(network, loader, live, set_name, banks)
        except Exception as error:
            note(set_name, error)
            continue
        for name, error in failed.items():
            note(f"{name}/{set_name}", error)
        for name, bank in found_banks.items():
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
    return HeadResults(metrics, scores, errors)


def _banks(
    network: nn.Module, loader: Iterable, heads: Mapping[str, Any], split: str, known: MutableMapping[str, Bank] | None
) -> tuple[dict[str, Bank], dict[str, Exception]]:
    """The bank that each head wants of a data set, from one pass, or none where a known one serves all; and what perturbations raised."""
    plain = known.get(split) if known is not None else None
    perturbs = {name: head.perturb for name, head in heads.items() if hasattr(head, "perturb")}
    describes = {name: head.describe for name, head in heads.items() if hasattr(head, "describe")}
    need_plain = plain is None and len(perturbs) + len(describes) < len(heads)
    views, failed = {}, {}
    if need_plain or perturbs or describes:
        views, failed = extract_views(network, loader, perturbs, plain=need_plain, describes=describes)
    plain = views.get(None, plain)
    if known is not None and plain is not None:
        known[split] = plain
    return {name: views.get(name, plain) for name in heads if name not in failed}, failed


def _score(head: Any, bank: Bank) -> Tensor:
    scores_N = head.score(bank)
    if scores_N.shape != (len(bank),) or scores_N.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"score must give ({len(bank)},) numbers in float32 or float64, got {tuple(scores_N.shape)} in {scores_N.dtype}")
    if num_nan := int(scores_N.isnan().sum()):
        raise ValueError(f"{num_nan} of {len(bank)} scores are NaN")
    return scores_N.detach().cpu()
