"""Intervals of a card against slow loops and a library."""

import functools

import numpy as np
import pytest
import torch

from attnlab.evaluation.scores import Scores, save_scores
from attnlab.hub.intervals import delong, intervals, of_mean, wilson


def test_delong_is_the_loop_over_all_pairs() -> None:
    draw = np.random.default_rng(0)
    in_N, out_M = draw.integers(0, 6, 23).astype(float), draw.integers(2, 9, 17).astype(float)  # ties
    psi_MN = np.array([[1.0 if ood > own else 0.5 if ood == own else 0.0 for own in in_N] for ood in out_M])
    area = psi_MN.mean()
    variance = sum((p - area) ** 2 for p in psi_MN.mean(1)) / 16 / 17 + sum((q - area) ** 2 for q in psi_MN.mean(0)) / 22 / 23
    found, (low, high) = delong(in_N, out_M)
    assert found == pytest.approx(area) and (high - low) / 2 / 1.959963984540054 == pytest.approx(variance**0.5)
    assert delong(in_N[:1], out_M)[1] is None and delong(np.zeros(3), np.ones(3)) == (1.0, (1.0, 1.0))


def test_they_cover_as_often_as_they_say() -> None:
    draw = np.random.default_rng(1)
    of_hits = functools.cache(lambda hits: wilson(hits, 60))
    shares = [of_hits(int(hits)) for hits in draw.binomial(60, 0.9, 2000)]
    means = [of_mean(draw.exponential(size=200)) for _ in range(2000)]
    areas = [delong(draw.normal(size=50), draw.normal(1.0, 1.0, 60))[1] for _ in range(1000)]
    for found, truth in ((shares, 0.9), (means, 1.0), (areas, 0.7602499389)):
        assert 0.925 < np.mean([low <= truth <= high for low, high in found]) < 0.975
    assert wilson(10, 10)[1] == 1.0 and of_mean(np.ones(1)) is None


def test_scores_that_are_not_the_metrics_give_none(tmp_path) -> None:
    logits, labels = torch.tensor([[2.0, 0], [0, 1], [3, 0]]), torch.tensor([0, 0, 0])
    sets = {"test": torch.tensor([0.0, 1.0, 2.0]), "x": torch.tensor([1.5, 3.0])}
    save_scores(tmp_path / "scores.npz", Scores({"test": (logits, labels)}, {"msp": sets}, {}))
    metrics = {"test/acc": 2 / 3, "test/nll": 0.5, "ood/msp/x/auroc": 5 / 6}
    assert {*intervals(tmp_path, metrics)} == {"test/acc", "ood/msp/x/auroc"}  # nll is another network's
    assert intervals(tmp_path / "none", metrics) == {}
