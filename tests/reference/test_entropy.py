"""Predictive entropy against scipy's, a sum in Python's own floats, and the laws of an entropy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from scipy.stats import entropy

from attnlab.ood.bank import Bank
from attnlab.ood.entropy import Entropy
from attnlab.ood.pytorch_ood import PytorchOOD

LOGITS = arrays(np.float64, (3, 5), elements=st.floats(-50, 50))


def bank_of(logits):
    logits = torch.as_tensor(logits)
    return Bank(torch.zeros(len(logits), 0), logits, torch.zeros(len(logits), dtype=torch.int64))


@given(LOGITS)
def test_entropy_is_scipys_and_the_slow_sum(logits):
    found = Entropy().score(bank_of(logits))
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found, entropy(softmax(logits, 1), axis=1), rtol=1e-12, atol=1e-14)
    for row, value in zip(logits.tolist(), found.tolist()):
        odds = [math.exp(z - max(row)) for z in row]
        p = [odd / math.fsum(odds) for odd in odds]
        assert value == pytest.approx(-math.fsum(x * math.log(x) for x in p if x > 0), rel=1e-12, abs=1e-14)


@given(LOGITS, st.floats(-1e3, 1e3), st.permutations(range(5)))
def test_laws(logits, shift, order):
    found = Entropy().score(bank_of(logits))
    assert (found >= 0).all() and (found <= math.log(5) + 1e-12).all()
    np.testing.assert_allclose(Entropy().score(bank_of(logits[:, order] + shift)), found, rtol=1e-9, atol=1e-11)


def test_extremes():
    rows = torch.tensor([[0.0, 0, 0, 0], [900, 0, -900, 0], [0, 0, -math.inf, -math.inf]], dtype=torch.float64)
    np.testing.assert_allclose(Entropy().score(bank_of(rows)), [math.log(4), 0, math.log(2)], atol=1e-15)
    assert Entropy().score(bank_of(torch.tensor([[math.nan, 0.0]]))).isnan().all()


def test_confident_predictions_do_not_tie():
    """In fp32 the largest probability is 1 for all four; pytorch-ood's floor under them hides the smallest entropies."""
    bank = bank_of(torch.tensor([[20.0, 0, 0], [25, 0, 0], [30, 0, 0], [40, 0, 0]]))
    found, floored = Entropy().score(bank), PytorchOOD(detector="Entropy").score(bank)
    assert (found.diff() < 0).all() and 0 < found.min() < 1e-15
    assert floored.min() > 1e-6 and floored.max() / floored.min() < 1.01


def test_as_pytorch_ood_where_that_does_not_clip():
    bank = bank_of(torch.randn(50, 10, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(Entropy().score(bank), PytorchOOD(detector="Entropy").score(bank))
