"""Gaze: hits and chance against a loop, planted units, and a run."""

import math

import pytest
import torch

from attnlab.evaluation.gaze import Gaze, agreement


def test_agreement_is_the_loop() -> None:
    torch.manual_seed(0)
    maps, boxes = torch.rand(3, 6, 4, 5), torch.tensor([[0.0, 0, 16, 10], [10, 10, 40, 32], [3, 3, 4, 4]])
    found = agreement(maps, boxes, 32, 40, units=3, sigma=0.25)
    for n in range(3):
        x0, y0, x1, y1 = boxes[n].tolist()
        inside = [[x0 <= (j + 0.5) * 8 < x1 and y0 <= (i + 0.5) * 8 < y1 for j in range(5)] for i in range(4)]
        weight = [[math.exp(-(((j + 0.5) / 5 - 0.5) ** 2 + ((i + 0.5) / 4 - 0.5) ** 2) / 0.125) for j in range(5)] for i in range(4)]
        units = sorted(range(6), key=lambda c: -maps[n, c].max().item())[:3]
        places = [divmod(int(maps[n, c].argmax()), 5) for c in units]
        assert found["hits"][n].item() == pytest.approx(sum(inside[i][j] for i, j in places) / 3)
        assert found["uniform"][n].item() == pytest.approx(sum(map(sum, inside)) / 20)
        total = sum(map(sum, weight))
        expected = sum(weight[i][j] for i in range(4) for j in range(5) if inside[i][j]) / total
        assert found["centre"][n].item() == pytest.approx(expected, rel=1e-5)


def test_in_a_run(run) -> None:
    words = ["evaluator=[gaze]", "evaluator.gaze.num=40", "ood=none", "trainer.max_epochs=1"]
    metrics = run("data=cluttered_digits", *words)["metrics"]
    assert 0 <= metrics["gaze/layer1/hits"] <= 1 and 0 < metrics["gaze/layer4/uniform"] < 1
    assert math.isfinite(metrics["gaze/layer2/z_centre"])
    with pytest.raises(ValueError, match="the test images have none"):
        run(*words)
    with pytest.raises(ValueError, match="units must be at least 1"):
        Gaze(units=0)
