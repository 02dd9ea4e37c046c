"""Temperature scaling against the authors' numbers and SciPy; calibration and selective-prediction metrics against slow loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch import Tensor

from attnlab.evaluation.calibration import Calibration, fit_temperature
from attnlab.metrics import accuracy, adaptive_ece, aurc, classwise_ece, ece, nll, risk_at
from tests.golden_numbers import golden

METRICS = {"adaptive_ece": adaptive_ece, "classwise_ece": classwise_ece, "aurc": aurc, "risk": lambda z, y: risk_at(z, y, 0.8)}


def drawn(seed: int, num: int = 60, classes: int = 4, *, spread: float = 2.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(num, classes, generator=generator, dtype=torch.float64)
    return logits, torch.distributions.Categorical(logits=torch.zeros(num, classes)).probs.multinomial(1, generator=generator)[:, 0]


def sampled(seed: int, num: int, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Logits, and labels drawn from their own softmax: perfectly calibrated."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(num, classes, generator=generator, dtype=torch.float64)
    return logits, logits.softmax(1).multinomial(1, generator=generator)[:, 0]


# -- temperature scaling


def test_temperature_and_what_it_does_to_nll_and_ece() -> None:
    stored = golden("components", "ts_")
    logits, labels = stored["logits"], stored["y"]
    temperature = fit_temperature(logits, labels)
    assert temperature == pytest.approx(float(stored["temperature_exact"]), abs=1e-6)
    assert abs(temperature - float(stored["temperature_code"])) > 0.1  # where the authors' optimiser stops
    for name, scale in (("T1", 1.0), ("Texact", temperature)):
        assert nll(logits / scale, labels) == pytest.approx(float(stored[f"nll_{name}"]), rel=1e-9)
        assert ece(logits / scale, labels, probs=False) == pytest.approx(float(stored[f"ece15_{name}"]), rel=1e-5)
    assert ece(logits, labels, bins=10, probs=False) == pytest.approx(float(stored["ece10_T1"]), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 30.0, 1e6])
def test_temperature_is_the_minimum_whatever_the_scale(scale: float) -> None:
    logits, labels = sampled(0, 500)
    logits = logits * scale
    temperature = fit_temperature(logits, labels)
    best = minimize_scalar(lambda t: nll(logits / math.exp(t), labels), bounds=(math.log(scale) - 3, math.log(scale) + 3), method="bounded")
    assert math.log(temperature) == pytest.approx(best.x, abs=1e-4)
    log_t = torch.tensor(math.log(temperature), dtype=torch.float64, requires_grad=True)
    torch.nn.functional.cross_entropy(logits / log_t.exp(), labels).backward()
    assert abs(float(log_t.grad)) < 1e-10


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(0.05, 20))
def test_scaled_logits_have_a_scaled_temperature(seed: int, scale: float) -> None:
    logits, labels = sampled(seed, 200)
    one, other = fit_temperature(logits, labels), fit_temperature(logits * scale + 3, labels)
    assert other == pytest.approx(one * scale, rel=1e-6)
    assert fit_temperature(logits / one, labels) == pytest.approx(1, rel=1e-6)
    assert accuracy(logits / one, labels) == accuracy(logits, labels)
    assert nll(logits / one, labels) <= nll(logits, labels) + 1e-12


def test_a_planted_temperature_is_found() -> None:
    logits, labels = sampled(1, 50_000)
    for planted in (0.4, 1.0, 3.0):
        assert fit_temperature(logits * planted, labels) == pytest.approx(planted, rel=0.02)


def test_where_no_temperature_is_best() -> None:
    right = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    assert fit_temperature(right, torch.tensor([0, 1])) == 0.0
    assert fit_temperature(right, torch.tensor([1, 0])) == math.inf
    assert fit_temperature(torch.zeros(2, 3), torch.tensor([1, 0])) in (0.0, math.inf)
    almost = torch.tensor([[3.0, 0.0], [0.0, 1.0], [1e-9, 0.0]])
    assert 0 < fit_temperature(almost, torch.tensor([0, 1, 1])) < 1
    for logits, message in ((torch.tensor([[math.nan, 0.0]]), "NaN"), (torch.tensor([[-math.inf, 0.0]]), "must be finite")):
        with pytest.raises(ValueError, match=message):
            fit_temperature(logits, torch.tensor([1]))
    with pytest.raises(ValueError, match="labels must be in"):
        fit_temperature(right, torch.tensor([0, 2]))


def test_fraction_is_checked() -> None:
    for bad in (0.0, 1.5, -1.0):
        with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\]"):
            Calibration(fraction=bad)


# -- metrics, by slow loops


def slow_ranked(logits: Tensor, labels: Tensor) -> list[tuple[float, float]]:
    """(confidence, error) from the most confident down; equal confidences share their mean error."""
    probs = logits.softmax(1).numpy()
    pairs = [(float(p.max()), float(p.argmax() != int(label))) for p, label in zip(probs, labels)]
    shared = {c: np.mean([e for other, e in pairs if other == c]) for c, _ in pairs}
    return sorted(((c, shared[c]) for c, _ in pairs), reverse=True)


def slow_aurc(logits: Tensor, labels: Tensor) -> float:
    errors = [error for _, error in slow_ranked(logits, labels)]
    return float(np.mean([np.mean(errors[:i]) for i in range(1, len(errors) + 1)]))


def slow_adaptive(logits: Tensor, labels: Tensor, bins: int) -> float:
    ranked = slow_ranked(logits, labels)[::-1]
    total = 0.0
    for part in np.array_split(np.arange(len(ranked)), bins):
        if len(part):
            correct, confidence = np.mean([1 - ranked[i][1] for i in part]), np.mean([ranked[i][0] for i in part])
            total += len(part) / len(ranked) * abs(correct - confidence)
    return float(total)


def slow_classwise(logits: Tensor, labels: Tensor, bins: int) -> float:
    probs = logits.softmax(1).numpy()
    total = 0.0
    for k in range(probs.shape[1]):
        for b in range(bins):
            inside = [i for i in range(len(probs)) if (b / bins < probs[i, k] or b == 0) and probs[i, k] <= (b + 1) / bins]
            if inside:
                share, stated = np.mean([int(labels[i]) == k for i in inside]), np.mean([probs[i, k] for i in inside])
                total += len(inside) / len(probs) * abs(share - stated)
    return float(total / probs.shape[1])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ties", [False, True])
def test_metrics_are_the_slow_loops(seed: int, ties: bool) -> None:
    logits, labels = drawn(seed, 23 + seed)
    if ties:
        logits = logits.round() * 30  # saturated: many confidences of one
    assert aurc(logits, labels) == pytest.approx(slow_aurc(logits, labels), abs=1e-12)
    for bins in (1, 4, 15, 40):
        assert adaptive_ece(logits, labels, bins=bins) == pytest.approx(slow_adaptive(logits, labels, bins), abs=1e-12)
        assert classwise_ece(logits, labels, bins=bins) == pytest.approx(slow_classwise(logits, labels, bins), abs=1e-12)
    errors = [error for _, error in slow_ranked(logits, labels)]
    for coverage in (0.5, 0.8, 0.9, 0.95, 1.0):
        kept = errors[: math.ceil(round(coverage * len(errors), 9))]
        assert risk_at(logits, labels, coverage) == pytest.approx(np.mean(kept), abs=1e-12)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.booleans())
def test_the_order_of_images_changes_nothing(seed: int, ties: bool) -> None:
    logits, labels = drawn(seed, 30)
    logits = logits.round() * 20 if ties else logits
    order = torch.randperm(30, generator=torch.Generator().manual_seed(seed + 1))
    for name, metric in METRICS.items():
        assert metric(logits, labels) == pytest.approx(metric(logits[order], labels[order]), abs=1e-12), name
        assert 0 <= metric(logits, labels) <= 1


def test_perfect_calibration_and_perfect_ranking() -> None:
    logits, labels = sampled(2, 100_000)
    for metric in (ece, adaptive_ece, classwise_ece):
        assert metric(logits, labels) < 0.01
        assert metric(3 * logits, labels) > 2 * metric(logits, labels)
    # ten images by falling confidence, the last three wrong: the errors are where the confidence is least
    logits = torch.stack([torch.linspace(5, 1, 10), torch.zeros(10)], 1)
    labels = torch.tensor([0] * 7 + [1] * 3)
    assert aurc(logits, labels) == pytest.approx((1 / 8 + 2 / 9 + 3 / 10) / 10)
    assert (risk_at(logits, labels, 0.7), risk_at(logits, labels, 0.8), risk_at(logits, labels, 1.0)) == pytest.approx((0, 1 / 8, 0.3))
    assert aurc(logits, 1 - labels) > aurc(logits, labels) and aurc(logits, torch.zeros(10, dtype=torch.int64)) == 0
    assert aurc(logits, torch.ones(10, dtype=torch.int64)) == 1


def test_what_cannot_be_measured() -> None:
    logits, labels = drawn(0)
    for metric in (adaptive_ece, classwise_ece):
        with pytest.raises(ValueError, match="bins must be at least 1"):
            metric(logits, labels, bins=0)
    for coverage in (0.0, 1.1):
        with pytest.raises(ValueError, match="coverage must be in"):
            risk_at(logits, labels, coverage)
    for metric in METRICS.values():
        with pytest.raises(ValueError, match="hold NaN"):
            metric(logits * math.nan, labels)
