"""Cross-entropy against explicit loops."""

import math

import pytest
import torch
import torch.nn.functional as F

from attnlab.losses.cross_entropy import CrossEntropy
from attnlab.network import Output


def out_of(logits_BK):
    return Output(logits_BK, features=None, fc=None)


def loop(logits_BK, probs_BK):
    total = 0.0
    for z, q in zip(logits_BK.tolist(), probs_BK.tolist()):
        log_sum = math.log(sum(math.exp(v) for v in z))
        total -= sum(p * (v - log_sum) for p, v in zip(q, z))
    return total / len(logits_BK)


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(0)
    logits_BK = 3 * torch.randn(12, 5, dtype=torch.float64, generator=g)
    return logits_BK, torch.randint(5, (12,), generator=g), torch.rand(12, 5, dtype=torch.float64, generator=g).softmax(1)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_hard_and_soft_labels(batch, smoothing):
    logits_BK, y_B, y_BK = batch
    loss = CrossEntropy(5, 7, label_smoothing=smoothing)
    for y, probs_BK in [(y_B, torch.eye(5)[y_B].double()), (y_BK, y_BK), (y_BK.float(), y_BK.float().double())]:
        terms = loss(out_of(logits_BK), y)
        assert list(terms) == ["ce"] and terms["ce"].shape == ()
        assert terms["ce"].item() == pytest.approx(loop(logits_BK, (1 - smoothing) * probs_BK + smoothing / 5), rel=1e-12)


def test_half_precision_logits_are_lifted_first(batch):
    logits_BK, y_B, _ = batch
    half = logits_BK.bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ce = CrossEntropy(5, 7)(out_of(half), y_B)["ce"]
    assert ce.dtype == torch.float32
    assert ce.item() == pytest.approx(loop(half.double(), torch.eye(5)[y_B]), rel=1e-6)


def test_gradient_is_softmax_minus_target(batch):
    logits_BK, _, y_BK = batch
    logits_BK.requires_grad_()
    CrossEntropy(5, 7)(out_of(logits_BK), y_BK)["ce"].backward()
    torch.testing.assert_close(logits_BK.grad, (logits_BK.detach().softmax(1) - y_BK) / 12)


def test_traces(batch):
    logits_BK, y_B, y_BK = batch
    loss = CrossEntropy(5, 7, label_smoothing=0.1)
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    for y in (y_B, y_BK):
        assert compiled(out_of(logits_BK), y)["ce"] == loss(out_of(logits_BK), y)["ce"]


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_smoothing_out_of_range(value):
    with pytest.raises(ValueError, match=r"label_smoothing must be in \[0, 1\]"):
        CrossEntropy(5, 7, label_smoothing=value)


def test_weight_multiplies_the_loss() -> None:
    out, y = Output(torch.randn(5, 3), None, None), torch.tensor([0, 1, 2, 0, 1])
    whole = CrossEntropy(3, 4)(out, y)["ce"]
    for weight in (0.1, 2.0):
        torch.testing.assert_close(CrossEntropy(3, 4, weight=weight)(out, y)["ce"], weight * whole)
    with pytest.raises(ValueError, match="weight must be 0 or more, got -1"):
        CrossEntropy(3, 4, weight=-1)


@pytest.mark.parametrize("soft", [False, True])
def test_the_mean_is_over_images_and_copies(soft: bool) -> None:
    torch.manual_seed(0)
    z, copies = torch.randn(2, 4, 3, dtype=torch.float64)
    y = torch.rand(4, 3, dtype=torch.float64).softmax(1) if soft else torch.tensor([0, 1, 2, 1])
    terms = CrossEntropy(3, 5)(Output(z, None, None, y, Output(copies, None, None)), y)
    torch.testing.assert_close(terms["ce"], (F.cross_entropy(z, y) + F.cross_entropy(copies, y)) / 2)


def test_images_without_a_label_do_not_count(batch) -> None:
    logits_BK, y_B, _ = batch
    some = CrossEntropy(5, 7)(out_of(logits_BK), y_B.where(torch.arange(12) < 8, -1))["ce"]
    torch.testing.assert_close(some, CrossEntropy(5, 7)(out_of(logits_BK[:8]), y_B[:8])["ce"])


def test_the_edges_of_the_ranges_are_in_them(batch) -> None:
    logits_BK, y_B, _ = batch
    assert CrossEntropy(5, 7, weight=0)(out_of(logits_BK), y_B)["ce"] == 0
