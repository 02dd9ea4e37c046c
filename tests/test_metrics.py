"""The metrics against independent formulas, and the laws they must obey."""

import ast
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn import metrics as sk

import attnlab
from attnlab import metrics

# few distinct values, so that ties within and across the two sides are common
tied = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=25)
spread = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=25)
pairs = st.one_of(st.tuples(tied, tied), st.tuples(spread, spread))
law = settings(max_examples=60, deadline=None)


def pair_counting(id_scores, ood_scores):
    wins = [(o > i) + 0.5 * (o == i) for i, o in itertools.product(id_scores, ood_scores)]
    return sum(wins) / len(wins)


def openood(id_scores, ood_scores):
    """OpenOOD v1.5's `auc_and_fpr_recall`, rewritten: conf is larger for ID, OOD is the positive class.

    OpenOOD leaves sklearn's drop_intermediate on, which with tied scores may drop the very threshold that FPR95 is read at; here it is off.
    """
    conf = -np.concatenate([id_scores, ood_scores])
    is_ood = np.concatenate([np.zeros(len(id_scores)), np.ones(len(ood_scores))])
    fpr, tpr, _ = sk.roc_curve(is_ood, -conf, drop_intermediate=False)
    precision_in, recall_in, _ = sk.precision_recall_curve(1 - is_ood, conf)
    precision_out, recall_out, _ = sk.precision_recall_curve(is_ood, -conf)
    fpr_id, tpr_id, _ = sk.roc_curve(1 - is_ood, conf, drop_intermediate=False)
    return {
        "auroc": sk.auc(fpr, tpr),
        "aupr_in": sk.auc(recall_in, precision_in),
        "aupr_out": sk.auc(recall_out, precision_out),
        "fpr95": fpr[np.argmax(tpr >= 0.95)],
        "fpr95_id": fpr_id[np.argmax(tpr_id >= 0.95)],
    }


@law
@given(pairs)
def test_ranking_metrics_equal_independent_formulas(scores):
    ours = metrics.ood_metrics(*scores)
    assert ours == pytest.approx(openood(*scores), abs=1e-12)
    assert ours["auroc"] == pytest.approx(pair_counting(*scores), abs=1e-12)


def fpr_by_search(negatives, positives):
    """Larger = positive. Over all thresholds that catch at least 95% of the positives, the highest one's share of negatives."""
    good = [t for t in positives if np.mean(np.asarray(positives) >= t) >= 0.95]
    return np.mean(np.asarray(negatives) >= max(good))


@law
@given(pairs)
def test_fpr95_both_senses_by_search_over_thresholds(scores):
    id_scores, ood_scores = scores
    assert metrics.fpr95(id_scores, ood_scores) == pytest.approx(fpr_by_search(id_scores, ood_scores))
    assert metrics.fpr95_id(id_scores, ood_scores) == pytest.approx(fpr_by_search([-s for s in ood_scores], [-s for s in id_scores]))


def test_the_two_fpr95_are_different_figures():
    id_scores = np.arange(100.0)
    ood_scores = np.concatenate([np.full(50, 50.5), np.full(50, 1000.0)])
    assert metrics.fpr95(id_scores, ood_scores) == 0.49  # to flag 95% of the OOD half of the ID samples are flagged
    assert metrics.fpr95_id(id_scores, ood_scores) == 0.5  # to accept 95% of the ID half of the OOD samples are accepted


@law
@given(pairs, st.randoms(use_true_random=False))
def test_permutation_changes_nothing(scores, random):
    shuffled = [random.sample(side, len(side)) for side in scores]
    assert metrics.ood_metrics(*shuffled) == metrics.ood_metrics(*scores)


@law
@given(st.tuples(tied, tied), st.sampled_from([lambda s: 3 * s + 7, math.atan, math.exp, lambda s: s**3]))
def test_monotone_maps_change_nothing(scores, f):
    mapped = [[f(s) for s in side] for side in scores]
    assert metrics.ood_metrics(*mapped) == metrics.ood_metrics(*scores)


@law
@given(pairs)
def test_auroc_of_negated_scores_is_the_complement(scores):
    negated = [[-s for s in side] for side in scores]
    assert metrics.auroc(*scores) + metrics.auroc(*negated) == pytest.approx(1, abs=1e-12)
    assert metrics.auroc(scores[1], scores[0]) == pytest.approx(metrics.auroc(*negated), abs=1e-12)


def test_all_equal_scores_are_chance():
    found = metrics.ood_metrics(torch.zeros(30), torch.zeros(20))
    assert found["auroc"] == 0.5
    assert found["fpr95"] == found["fpr95_id"] == 1


def test_perfect_separation():
    assert metrics.ood_metrics([1.0, 2.0], [3.0, 4.0, 5.0]) == {"auroc": 1, "aupr_in": 1, "aupr_out": 1, "fpr95": 0, "fpr95_id": 0}


def test_scores_far_outside_the_unit_interval():
    """chi^2(512) distances: where torchmetrics' BinaryAUROC answers 0.5 because it takes a sigmoid first."""
    rng = np.random.default_rng(0)
    id_scores, ood_scores = rng.chisquare(512, 2000), rng.chisquare(512, 2000) + 60
    expected = sk.roc_auc_score(np.repeat([0, 1], 2000), np.concatenate([id_scores, ood_scores]))
    assert 0.9 < expected < 0.97
    assert metrics.auroc(id_scores, ood_scores) == pytest.approx(expected, abs=1e-12)


def test_float64_ranks_are_kept():
    assert metrics.auroc([1.0, 1.0], [1.0 + 1e-12]) == 1  # one value in fp32
    assert metrics.auroc(np.array([1.0]), torch.tensor([1.0 + 1e-12], dtype=torch.float64)) == 1


def test_infinities_rank_as_extremes():
    inf = math.inf
    assert metrics.auroc([-inf, 0.0], [inf, inf]) == 1
    assert metrics.auroc([inf], [inf]) == 0.5
    assert metrics.ood_metrics([-inf, 1.0, inf], [0.0, inf]) == metrics.ood_metrics([-9.0, 1.0, 9.0], [0.0, 9.0])


@pytest.mark.parametrize("metric", [metrics.auroc, metrics.aupr_in, metrics.aupr_out, metrics.fpr95, metrics.fpr95_id, metrics.ood_metrics])
def test_scores_that_cannot_be_ranked_are_refused(metric):
    good = torch.arange(3.0)
    nan = torch.tensor([math.nan, 1.0, math.nan])
    with pytest.raises(ValueError, match=r"2 of 3 OOD scores are NaN.*larger = more OOD"):
        metric(good, nan)
    with pytest.raises(ValueError, match="2 of 3 ID scores are NaN"):
        metric(nan, good)
    with pytest.raises(ValueError, match="no OOD scores"):
        metric(good, [])
    with pytest.raises(ValueError, match="no ID scores"):
        metric(np.zeros(0), good)
    with pytest.raises(ValueError, match="1-D"):
        metric(good, torch.zeros(3, 1))
    with pytest.raises(ValueError, match="float32 or better"):
        metric(good, good.bfloat16())


# ---------------------------------------------------------------- classification


def classified(seed, num=300, num_classes=7):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(num, num_classes)) * rng.choice([0.1, 1, 8])
    labels = np.where(rng.random(num) < 0.5, logits.argmax(1), rng.integers(0, num_classes, num))
    return logits, labels


def softmax(logits):
    e = np.exp(logits - logits.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def slow_ece(probs, labels, bins):
    confidence, correct = probs.max(1), probs.argmax(1) == labels
    total = 0
    for low, high in itertools.pairwise(np.linspace(0, 1, bins + 1)):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("seed", range(5))
def test_classification_metrics_equal_independent_formulas(seed):
    logits, labels = classified(seed)
    probs = softmax(logits)
    found = metrics.classification_metrics(logits, labels)
    assert found == pytest.approx(
        {
            "acc": sk.accuracy_score(labels, logits.argmax(1)),
            "nll": -np.mean([log_softmax(row)[y] for row, y in zip(logits, labels)]),
            "ece": slow_ece(probs, labels, 15),
            "brier": np.mean([sum((p[k] - (k == y)) ** 2 for k in range(7)) for p, y in zip(probs, labels)]),
        },
        rel=1e-10,
    )
    for bins in (1, 4, 100):
        assert metrics.ece(torch.tensor(logits), torch.tensor(labels), bins=bins) == pytest.approx(slow_ece(probs, labels, bins))


def test_ece_equals_torchmetrics():
    from torchmetrics.functional.classification import multiclass_calibration_error

    logits, labels = (torch.tensor(a) for a in classified(3))
    expected = multiclass_calibration_error(logits.softmax(1).float(), labels, num_classes=7, n_bins=15)
    assert metrics.ece(logits, labels) == pytest.approx(float(expected), abs=1e-5)


def test_ece_takes_logits_and_probabilities():
    logits, labels = (torch.tensor(a) for a in classified(1))
    probs = logits.softmax(1)
    assert metrics.ece(probs, labels) == metrics.ece(probs, labels, probs=True) == pytest.approx(metrics.ece(logits, labels), abs=1e-12)
    assert metrics.ece(probs.float(), labels) == pytest.approx(metrics.ece(logits, labels), abs=1e-5)
    assert metrics.ece(probs.bfloat16(), labels) == pytest.approx(metrics.ece(logits, labels), abs=2e-2)
    assert metrics.ece(probs, labels, probs=False) == pytest.approx(slow_ece(softmax(probs.numpy()), labels.numpy(), 15))
    with pytest.raises(ValueError, match="probs=True"):
        metrics.ece(logits, labels, probs=True)
    with pytest.raises(ValueError, match="bins must be at least 1"):
        metrics.ece(logits, labels, bins=0)


def test_ece_at_the_edges():
    assert metrics.ece([[1.0, 0.0], [1.0, 0.0]], [0, 0]) == 0  # confidence 1 is in the last bin
    assert metrics.ece([[1.0, 0.0], [1.0, 0.0]], [1, 1]) == 1
    assert metrics.ece([[0.5, 0.5]], [0], bins=2) == 0.5  # 0.5 is in (0, 0.5]


def test_half_precision_logits_are_cast_before_the_softmax():
    logits, labels = (torch.tensor(a) for a in classified(2))
    half = logits.bfloat16()
    assert metrics.classification_metrics(half, labels) == metrics.classification_metrics(half.double(), labels)


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4], [-1e4, 1e4]])
    assert metrics.classification_metrics(logits, [0, 1]) == {"acc": 1, "nll": 0, "ece": 0, "brier": 0}
    assert metrics.nll(logits, [1, 0]) == 2e4
    assert metrics.nll([[0.0, -math.inf]], [1]) == math.inf


@pytest.mark.parametrize("metric", [metrics.accuracy, metrics.nll, metrics.ece, metrics.brier, metrics.classification_metrics])
def test_bad_logits_and_labels_are_refused(metric):
    good, labels = torch.zeros(3, 2), torch.tensor([0, 1, 1])
    with pytest.raises(ValueError, match=r"\(N, K\)"):
        metric(good[:2], labels)
    with pytest.raises(ValueError, match=r"\(N, K\)"):
        metric(good[:0], labels[:0])
    with pytest.raises(ValueError, match="1 of 3 samples hold NaN"):
        metric(torch.tensor([[0.0, 0.0], [math.nan, 1.0], [0.0, 0.0]]), labels)
    with pytest.raises(ValueError, match=r"labels must be in \[0, 2\), got 0 to 2"):
        metric(good, labels + torch.tensor([0, 1, 0]))
    with pytest.raises(ValueError, match="class numbers"):
        metric(good, labels.float())


# ---------------------------------------------------------------- what must not be used

FORBIDDEN = ("auroc", "averageprecision", "average_precision", "precisionrecallcurve", "precision_recall_curve")


def torchmetrics_rankings(source: str) -> list[str]:
    """Names of torchmetrics' ranking metrics that a source uses: they take a sigmoid of scores outside [0, 1], batch by batch."""
    tree = ast.parse(source)
    modules, found = set(), []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torchmetrics"):
            found += [a.name for a in node.names if a.name == "*" or any(f in a.name.lower() for f in FORBIDDEN)]
            modules |= {a.asname or a.name for a in node.names}
        if isinstance(node, ast.Import):
            modules |= {(a.asname or a.name).split(".")[0] for a in node.names if a.name.startswith("torchmetrics")}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and any(f in node.attr.lower() for f in FORBIDDEN):
            root = node
            while isinstance(root, ast.Attribute):
                root = root.value
            found += [node.attr] if isinstance(root, ast.Name) and root.id in modules else []
    return found


def test_no_ood_score_goes_through_torchmetrics():
    assert torchmetrics_rankings("from torchmetrics.classification import BinaryAUROC") == ["BinaryAUROC"]
    assert torchmetrics_rankings("import torchmetrics as tm\ntm.functional.auroc(a, b)") == ["auroc"]
    assert torchmetrics_rankings("import torchmetrics.functional as f\nf.average_precision(a, b)") == ["average_precision"]
    assert torchmetrics_rankings("import torchmetrics\nfrom attnlab import metrics\nmetrics.auroc(a, b)") == []
    package = Path(attnlab.__file__).parent
    sources = sorted(package.rglob("*.py"))
    assert sources
    assert {str(path): used for path in sources if (used := torchmetrics_rankings(path.read_text(encoding="utf-8")))} == {}
    for config in (package.parent / "configs").rglob("*.yaml"):
        for line in config.read_text(encoding="utf-8").splitlines():
            assert not ("torchmetrics" in line and any(f in line.lower() for f in FORBIDDEN)), f"{config}: {line}"


def test_the_risk_of_a_few_samples_by_hand():
    """By falling confidence: right; then one right and one wrong of equal confidence; then wrong."""
    logits, labels = np.array([[4.0, 0], [0, 2], [2, 0], [1, 0]]), np.array([0, 1, 1, 1])
    assert metrics.aurc(logits, labels) == pytest.approx((0 + 0.5 / 2 + 1 / 3 + 2 / 4) / 4)
    assert metrics.risk_at(logits, labels, 0.5) == pytest.approx(0.25)
