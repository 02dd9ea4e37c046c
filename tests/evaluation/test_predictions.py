"""Which test images a reviewer is shown, and what of each."""

import pytest
import torch

from attnlab.evaluation.predictions import SIDE, _bounded, choose, predictions


def test_mistakes_come_first_and_leave_half_the_rows():
    confidence = torch.tensor([0.9, 0.5, 0.7, 0.8, 0.6, 0.95])
    right = torch.tensor([False, True, False, False, True, True])
    order = torch.tensor([5, 3, 1, 0, 2, 4])
    chosen, mistakes = choose(confidence, right, order, 4)
    assert (chosen.tolist(), mistakes) == ([0, 3, 5, 1], 2)  # 0 and 3 are the surest mistakes; then in order, none twice
    chosen, mistakes = choose(confidence, torch.ones(6, dtype=torch.bool), order, 4)
    assert (chosen.tolist(), mistakes) == ([5, 3, 1, 0], 0)
    chosen, mistakes = choose(confidence, ~torch.ones(6, dtype=torch.bool), order, 100)
    assert sorted(chosen.tolist()) == list(range(6)) and mistakes == 6


def test_large_images_are_reduced():
    small, large = torch.zeros(2, 3, 200, SIDE, dtype=torch.uint8), torch.full((2, 3, 300, 600), 7, dtype=torch.uint8)
    assert _bounded(small) is small
    assert _bounded(large).shape == (2, 3, SIDE // 2, SIDE) and bool((_bounded(large) == 7).all())


@pytest.mark.parametrize("num", [0, 64])
def test_data_that_are_no_images_have_no_rows(run, monkeypatch, num):
    from attnlab.evaluation.figures import Figures
    from tests.conftest import POINTS

    found = []
    monkeypatch.setattr(Figures, "run", lambda self, trained: found.append(predictions(trained, num)) or {})
    run("trainer.max_epochs=1", "evaluator=figures", "ood=none", base=POINTS)
    assert found == [([], [])]
