"""FGSM and PGD: on a linear classifier, where the worst point of the ball is known, and in the pixels of a run."""

import pytest
import torch
from torch import nn

from attnlab.evaluation.adversarial import Adversarial
from attnlab.losses.adversarial import fgsm, pgd
from attnlab.network import Network


def test_on_a_linear_classifier_both_find_the_worst_corner() -> None:
    torch.manual_seed(0)
    network = Network(nn.Linear(6, 2), shape=(6,)).double().eval()
    x, y = torch.randn(8, 6, dtype=torch.float64), torch.arange(8) % 2
    weight = network.backbone.weight.detach()
    away = (weight[1 - y] - weight[y]).sign()  # what lowers the true class's margin fastest
    epsilon = torch.tensor([0.1, 0.2, 0.3, 0.1, 0.2, 0.3], dtype=torch.float64)
    worst = x + epsilon * away
    torch.testing.assert_close(fgsm(network, x, y, epsilon=epsilon), worst)
    start = epsilon * (2 * torch.rand_like(x) - 1)
    torch.testing.assert_close(pgd(network, x, y, epsilon=epsilon, step=epsilon / 2, steps=5, start=start), worst)
    torch.testing.assert_close(pgd(network, x, y, epsilon=epsilon, step=0 * epsilon, steps=1, start=start), x + start)
    clipped = pgd(network, x, y, epsilon=epsilon, step=epsilon, steps=3, low=-0.5, high=0.5)
    torch.testing.assert_close(clipped, worst.clamp(-0.5, 0.5).clamp((x - epsilon).clamp(-0.5, 0.5), (x + epsilon).clamp(-0.5, 0.5)))
    assert all(parameter.grad is None for parameter in network.parameters())


def test_pgd_does_no_less_harm_than_fgsm_and_both_stay_in_the_ball() -> None:
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Linear(6, 30), nn.Tanh(), nn.Linear(30, 3)), shape=(6,)).double().eval()
    x, y = torch.randn(200, 6, dtype=torch.float64), torch.randint(0, 3, (200,))

    def loss(moved: torch.Tensor) -> float:
        assert (moved - x).abs().max() <= 0.5 + 1e-12
        return nn.functional.cross_entropy(network(moved).logits, y).item()

    assert loss(pgd(network, x, y, epsilon=0.5, step=0.1, steps=20)) >= loss(fgsm(network, x, y, epsilon=0.5)) > loss(x)


def test_of_a_run(run, monkeypatch) -> None:
    seen = []

    def watched(network, x, y, **options):
        seen.append((x, options))
        return pgd(network, x, y, **options)

    monkeypatch.setattr("attnlab.evaluation.adversarial.pgd", watched)
    words = [
        "evaluator=[adversarial]",
        "evaluator.adversarial.num=100",
        "evaluator.adversarial.epsilon=0.2",
        "evaluator.adversarial.steps=3",
    ]
    metrics = run(*words, "trainer.max_epochs=6")["metrics"]
    assert metrics["adversarial/pgd_acc"] <= metrics["test/acc"] and 0 <= metrics["adversarial/fgsm_acc"] <= 1
    x, options = seen[0]
    std = 0.2 / options["epsilon"]
    assert options["low"].shape == options["high"].shape == std.shape == (x.shape[1], 1, 1)
    torch.testing.assert_close((options["high"] - options["low"]) * std, torch.ones_like(std))  # pixels from 0 to 1
    assert (options["low"] - 1e-5 <= x).all() and (x <= options["high"] + 1e-5).all()
    assert (options["start"].abs() <= options["epsilon"]).all() and (options["start"] > 0.5 * options["epsilon"]).any()
    with pytest.raises(ValueError, match="epsilon and step must be above 0"):
        Adversarial(epsilon=0)
