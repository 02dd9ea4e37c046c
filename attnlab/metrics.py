"""The figures of a run, one formula each: OOD ranking (scores: larger = more OOD), classification, calibration
and selective prediction (logits, labels).

Legend: N samples, K classes. Every function takes tensors, arrays or lists, on any device, and returns a Python float; rates are fractions.

Rankings are done in fp64 on the scores as given, whatever their range: no metric here squashes a score into [0, 1].
"""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor


def auroc(id_scores: Any, ood_scores: Any) -> float:
    """Probability that a random OOD score is above a random ID score; ties count half. 1 is perfect, 0.5 is chance.

    Args:
        id_scores, ood_scores: (N,) each, float32 or better, larger = more OOD. +-inf take part in the ranking as the largest and
            smallest values (equal infinities tie), as the ranking needs no arithmetic on scores.

    Raises ValueError: NaN (how many, and on which side), no scores on one side, not 1-D, half precision (its ranks are already lost).
    """
    from pytorch_ood.metrics import functional

    return float(functional.auroc(*_ranking(id_scores, ood_scores)))


def aupr_out(id_scores: Any, ood_scores: Any) -> float:
    """Area under precision-recall with OOD as the positive class, by the trapezoid rule as in OpenOOD v1.5 (not average precision)."""
    from pytorch_ood.metrics import functional

    return float(functional.aupr(*_ranking(id_scores, ood_scores), positive="ood"))


def aupr_in(id_scores: Any, ood_scores: Any) -> float:
    """Area under precision-recall with ID as the positive class (scores negated), by the trapezoid rule as in OpenOOD v1.5."""
    from pytorch_ood.metrics import functional

    return float(functional.aupr(*_ranking(id_scores, ood_scores), positive="id"))


def fpr95(id_scores: Any, ood_scores: Any) -> float:
    """OOD positive (OpenOOD v1.5): share of ID samples flagged at the first threshold that flags at least 95% of the OOD samples."""
    from pytorch_ood.metrics import functional

    return float(functional.fpr_at_tpr(*_ranking(id_scores, ood_scores), tpr=0.95))


def fpr95_id(id_scores: Any, ood_scores: Any) -> float:
    """ID positive (ODIN, Energy, kNN papers): share of OOD samples accepted at the first threshold that accepts 95% of the ID samples."""
    from pytorch_ood.metrics import functional

    scores, labels = _ranking(id_scores, ood_scores)
    return float(functional.fpr_at_tpr(-scores, -1 - labels, tpr=0.95))  # labels 0 and -1 change places


def ood_metrics(id_scores: Any, ood_scores: Any) -> dict[str, float]:
    """`auroc`, `aupr_in`, `aupr_out`, `fpr95` (OOD positive) and `fpr95_id` (ID positive) of one ID and one OOD set of scores."""
    ranked = (auroc, aupr_in, aupr_out, fpr95, fpr95_id)
    return {metric.__name__: metric(id_scores, ood_scores) for metric in ranked}


def accuracy(logits: Any, labels: Any) -> float:
    """Share of samples whose largest logit (the first one of equals) is the label's. logits (N, K), labels (N,) in [0, K)."""
    logits_NK, labels_N = _classified(logits, labels)
    return float((logits_NK.argmax(1) == labels_N).double().mean())


def nll(logits: Any, labels: Any) -> float:
    """Mean of -log softmax(logits)[label], in nats. logits (N, K), labels (N,) in [0, K). A label with logit -inf gives inf."""
    logits_NK, labels_N = _classified(logits, labels)
    return float(torch.nn.functional.cross_entropy(logits_NK, labels_N))


def brier(logits: Any, labels: Any) -> float:
    """Mean over samples of sum_k (p_k - [k = label])^2, in [0, 2]: Brier's multi-class form, summed and not averaged over classes."""
    logits_NK, labels_N = _classified(logits, labels)
    error_NK = logits_NK.softmax(1) - torch.nn.functional.one_hot(labels_N, logits_NK.shape[1])
    return float(error_NK.square().sum(1).mean())


def ece(scores: Any, labels: Any, *, bins: int = 15, probs: bool | None = None) -> float:
    """Expected calibration error (Guo et al. 2017, 1706.04599): sum_b |B_b| / N * |accuracy(B_b) - confidence(B_b)|.

    Bin b holds the samples whose largest probability is in ((b - 1) / bins, b / bins].

    Args:
        scores: logits or probabilities (N, K).
        labels: (N,) in [0, K).
        bins: number of equal-width bins.
        probs: whether `scores` are probabilities. None: they are if no entry is negative and every row sums to one, to what the dtype
            can hold (1e-3, half precision 2e-2).

    Raises ValueError: as the other classification metrics; `bins` below 1; `probs=True` for rows that are no probabilities.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    scores_NK, labels_N = _classified(scores, labels)
    half = isinstance(scores, Tensor) and scores.dtype in (torch.float16, torch.bfloat16)
    look_like_probs = bool((scores_NK >= 0).all() and ((scores_NK.sum(1) - 1).abs() <= (2e-2 if half else 1e-3)).all())
    if probs and not look_like_probs:
        raise ValueError("probs=True, but some row has a negative entry or does not sum to one; give logits with probs=False")
    probs_NK = scores_NK if (look_like_probs if probs is None else probs) else scores_NK.softmax(1)
    confidence_N, predicted_N = probs_NK.max(1)
    inner_edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1]
    bin_N = torch.bucketize(confidence_N, inner_edges)  # right-closed bins
    gap_N = (predicted_N == labels_N).double() - confidence_N
    return float(torch.zeros(bins, dtype=torch.float64).index_add_(0, bin_N, gap_N).abs().sum() / len(labels_N))


def adaptive_ece(logits: Any, labels: Any, *, bins: int = 15) -> float:
    """ECE over bins of equal mass (Nguyen and O'Connor, 1508.05154): sum_b |B_b| / N * |accuracy(B_b) - confidence(B_b)|, in [0, 1].

    The samples in order of confidence (the largest softmax probability) are cut into `bins` groups whose sizes differ by one at most, the
    less confident ones larger. Samples of equal confidence share their mean correctness (our reading), so their order changes nothing.
    logits (N, K), labels (N,) in [0, K). Raises ValueError: as the other classification metrics; `bins` below 1.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    confidence_N, error_N = _by_confidence(logits, labels)
    gap_N = ((1 - error_N) - confidence_N).flip(0)
    return sum(abs(float(part.sum())) for part in gap_N.tensor_split(bins)) / len(gap_N)


def classwise_ece(logits: Any, labels: Any, *, bins: int = 15) -> float:
    """Class-wise ECE (Kull et al., 1910.12656): 1 / K sum_k sum_b |B_bk| / N * |share of class k in B_bk - mean p_k in B_bk|, in [0, 1].

    Bin b of class k holds the samples with p_k in ((b - 1) / bins, b / bins], the first one 0 too. logits (N, K), labels (N,) in [0, K).
    Raises ValueError: as the other classification metrics; `bins` below 1.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}")
    logits_NK, labels_N = _classified(logits, labels)
    probs_NK = logits_NK.softmax(1)
    bin_NK = torch.bucketize(probs_NK, torch.linspace(0, 1, bins + 1, dtype=torch.float64)[1:-1])
    gap_NK = torch.nn.functional.one_hot(labels_N, logits_NK.shape[1]) - probs_NK
    gap_bK = torch.zeros(bins, logits_NK.shape[1], dtype=torch.float64).scatter_add_(0, bin_NK, gap_NK)
    return float(gap_bK.abs().sum() / gap_NK.numel())


def aurc(logits: Any, labels: Any) -> float:
    """Area under the risk-coverage curve (Geifman et al., 1805.08206): 1 / N sum_i risk(i / N), in [0, 1], smaller is better.

    risk(i / N) is the error rate among the i samples of largest softmax probability; equal ones share their mean error, which is what
    they give in a random order on average. logits (N, K), labels (N,) in [0, K). Raises ValueError: as the other classification metrics.
    """
    return float(_risks(logits, labels).mean())


def risk_at(logits: Any, labels: Any, coverage: float) -> float:
    """The error rate among the ceil(coverage * N) most confident samples, in [0, 1]; see `aurc`.

    Raises ValueError: as the other classification metrics; coverage outside (0, 1].
    """
    if not 0 < coverage <= 1:
        raise ValueError(f"coverage must be in (0, 1], got {coverage}")
    risk_N = _risks(logits, labels)
    return float(risk_N[math.ceil(round(coverage * len(risk_N), 9)) - 1])


def classification_metrics(logits: Any, labels: Any) -> dict[str, float]:
    """`acc`, `nll`, `ece` (15 bins) and `brier` of logits (N, K) and labels (N,)."""
    return {
        "acc": accuracy(logits, labels),
        "nll": nll(logits, labels),
        "ece": ece(logits, labels, probs=False),
        "brier": brier(logits, labels),
    }


def multilabel_metrics(logits: Any, targets: Any) -> dict[str, float]:
    """Of networks that name several classes an image: logits (N, K) and targets (N, K), 0 or 1; a class is named where its logit is >= 0.

    `acc`, share of images whose classes are named exactly; `map`, the mean over classes that occur of average precision (scikit-learn's:
    no interpolation); `f1_macro`, mean F1 of the classes (of one that neither occurs nor is named: 0), and `f1_micro`, F1 of all decisions
    together; `nll`, the binary cross-entropies summed over classes, mean over images, in nats; `ece`, of the decisions (15 bins; the
    confidence of a decision is max(p, 1 - p)). Raises ValueError: shapes that disagree; targets that are not 0 or 1; NaN.
    """
    from sklearn.metrics import average_precision_score

    z_NK, t_NK = _tensor(logits).double(), _tensor(targets).double()
    if z_NK.ndim != 2 or z_NK.shape != t_NK.shape or not len(z_NK):
        raise ValueError(f"logits and targets must be (N, K), N > 0, got {tuple(z_NK.shape)} and {tuple(t_NK.shape)}")
    if not ((t_NK == 0) | (t_NK == 1)).all():
        raise ValueError("targets must be 0 or 1")
    if num_bad := int((~z_NK.isfinite()).any(1).sum()):
        raise ValueError(f"logits of {num_bad} of {len(z_NK)} samples hold NaN or infinite values")
    named_NK, there_NK = z_NK >= 0, t_NK > 0
    hits_K, either_K = (named_NK & there_NK).sum(0).double(), named_NK.sum(0).double() + there_NK.sum(0)
    occurring = there_NK.any(0).nonzero()[:, 0].tolist()
    precisions = [float(average_precision_score(there_NK[:, k].numpy(), z_NK[:, k].numpy())) for k in occurring]
    decisions = torch.stack([torch.zeros_like(z_NK), z_NK], 2).flatten(0, 1)
    return {
        "acc": float((named_NK == there_NK).all(1).double().mean()),
        "map": sum(precisions) / len(precisions) if precisions else 0.0,
        "f1_macro": float((2 * hits_K / either_K.clamp_min(1)).mean()),
        "f1_micro": float(2 * hits_K.sum() / either_K.sum().clamp_min(1)),
        "nll": float(torch.nn.functional.binary_cross_entropy_with_logits(z_NK, t_NK, reduction="none").sum(1).mean()),
        "ece": ece(decisions, there_NK.flatten().long(), probs=False),
    }


def _by_confidence(logits: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Confidence (N,), descending, and error (N,), 0 or 1, of each sample; samples of equal confidence share their mean error."""
    logits_NK, labels_N = _classified(logits, labels)
    confidence_N, predicted_N = logits_NK.softmax(1).max(1)
    levels_L, level_N, count_L = confidence_N.unique(return_inverse=True, return_counts=True)
    error_L = torch.zeros_like(levels_L).index_add_(0, level_N, (predicted_N != labels_N).double()) / count_L
    order_N = level_N.sort(descending=True).values
    return levels_L[order_N], error_L[order_N]


def _risks(logits: Any, labels: Any) -> Tensor:
    """The error rate among the i most confident samples, for i = 1 ... N."""
    _, error_N = _by_confidence(logits, labels)
    return error_N.cumsum(0) / torch.arange(1, len(error_N) + 1, dtype=torch.float64)


def _tensor(values: Any) -> Tensor:
    """On the CPU: a ranking is a sort and a read of a few numbers, and not every device has fp64."""
    if isinstance(values, Tensor):
        return values.detach().cpu()
    return torch.as_tensor(np.asarray(values))  # by way of numpy, as torch reads a list of Python floats as fp32


def _scores(values: Any, side: str) -> Tensor:
    scores_N = _tensor(values)
    if scores_N.ndim != 1:
        raise ValueError(f"{side} scores must be 1-D, one number a sample, got shape {tuple(scores_N.shape)}")
    if scores_N.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(f"{side} scores must be float32 or better, got {scores_N.dtype}: cast logits and features before they are scored")
    if len(scores_N) == 0:
        raise ValueError(f"no {side} scores: a ranking needs at least one ID and one OOD sample")
    if num_nan := int(scores_N.isnan().sum()):
        raise ValueError(f"{num_nan} of {len(scores_N)} {side} scores are NaN; a score must be a number, larger = more OOD")
    return scores_N.double()


def _ranking(id_scores: Any, ood_scores: Any) -> tuple[Tensor, Tensor]:
    """Scores (N,) in fp64 and labels (N,): 0 for ID, -1 for OOD."""
    id_N, ood_N = _scores(id_scores, "ID"), _scores(ood_scores, "OOD")
    labels_N = torch.cat([torch.zeros(len(id_N), dtype=torch.int64), torch.full((len(ood_N),), -1)])
    return torch.cat([id_N, ood_N]), labels_N


def _classified(logits: Any, labels: Any) -> tuple[Tensor, Tensor]:
    """Logits (N, K) in fp64 (never a softmax in half precision) and labels (N,), checked."""
    logits_NK, labels_N = _tensor(logits).double(), _tensor(labels)
    if logits_NK.ndim != 2 or labels_N.shape != logits_NK.shape[:1] or len(labels_N) == 0:
        raise ValueError(f"logits must be (N, K) and labels (N,), N > 0, got {tuple(logits_NK.shape)} and {tuple(labels_N.shape)}")
    if labels_N.is_floating_point():
        raise ValueError(f"labels must be class numbers, got {labels_N.dtype}")
    if num_bad := int((logits_NK.isnan() | logits_NK.isposinf()).any(1).sum()):
        raise ValueError(f"logits of {num_bad} of {len(labels_N)} samples hold NaN or +inf")
    if num_empty := int(logits_NK.isneginf().all(1).sum()):
        raise ValueError(f"logits of {num_empty} of {len(labels_N)} samples are all -inf, which is no distribution over classes")
    if int(labels_N.min()) < 0 or int(labels_N.max()) >= logits_NK.shape[1]:
        raise ValueError(f"labels must be in [0, {logits_NK.shape[1]}), got {int(labels_N.min())} to {int(labels_N.max())}")
    return logits_NK, labels_N.long()
