"""Analyses of a trained network: units, near and far sets, stale updates."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from attnlab.evaluation.near_far import NearFar
from attnlab.evaluation.stale_update import StaleUpdate
from attnlab.evaluation.units import Units, effective_rank
from attnlab.network import Network


def test_effective_rank() -> None:
    torch.manual_seed(0)
    basis = torch.linalg.qr(torch.randn(50, 4) - torch.randn(50, 4).mean(0))[0]
    centred = torch.linalg.qr(basis - basis.mean(0))[0]
    assert effective_rank(centred) == pytest.approx(4) and effective_rank(torch.ones(5, 3)) == 0
    line = torch.linspace(-1, 1, 20)[:, None] * torch.randn(7)
    assert effective_rank(line) == pytest.approx(1)
    p = torch.tensor([0.5, 0.3, 0.15, 0.05])
    assert effective_rank(centred * p) == pytest.approx(math.exp(torch.special.entr(p).sum()), rel=1e-5)


def test_stale_updates_are_the_definition_to_second_order() -> None:
    """A small step, every weight by itself, against the curvature."""
    torch.manual_seed(0)
    network = Network(nn.Sequential(nn.Linear(2, 2), nn.Tanh(), nn.Linear(2, 1, bias=False)), shape=(2,)).double()
    x, weights = torch.randn(5, 2, dtype=torch.float64), list(network.parameters())

    def loss() -> torch.Tensor:
        return F.softplus(network(x).logits[:, 0]).mean()

    gradients = torch.autograd.grad(loss(), weights, create_graph=True)
    step, rate, start = [one.detach() for one in gradients], 1e-3, loss().item()
    found = StaleUpdate(rate=rate, draws=600).penalty(list(gradients), weights, step)
    total = 0.0
    with torch.no_grad():
        for weight, one in zip(weights, step):
            for i in range(weight.numel()):
                before = weight.view(-1)[i].item()
                weight.view(-1)[i] -= rate * one.flatten()[i]
                total += loss().item() - start
                weight.view(-1)[i] = before
        for weight, one in zip(weights, step):
            weight -= rate * one
        together = loss().item() - start
        for weight, one in zip(weights, step):
            weight += rate * one
    assert found.item() == pytest.approx(together - total, rel=0.15)


def test_means_over_sets() -> None:
    metrics = {"ood/msp/a/auroc": 0.5, "ood/msp/b/auroc": 0.7, "ood/msp/c/auroc": 0.9, "ood/knn/a/auroc": 0.2, "test/acc": 1.0}
    trained = SimpleNamespace(metrics=metrics)
    found = NearFar(near=["a", "b"], far=["c"]).run(trained)
    assert found == pytest.approx({"ood/msp/near/auroc": 0.6, "ood/msp/far/auroc": 0.9})  # knn has no b
    with pytest.raises(ValueError, match=r"near_far\.far: d has no OOD scores"):
        NearFar(far=["d"]).run(trained)
    with pytest.raises(ValueError, match="none is named"):
        NearFar().run(trained)


def test_in_a_run(run) -> None:
    words = ["evaluator=[ood,near_far,units,stale_update]", "evaluator.near_far.far=[photos]", "trainer.max_epochs=1"]
    metrics = run(*words, "evaluator.units.num=50", "evaluator.stale_update.batch=16", "evaluator.stale_update.draws=2")["metrics"]
    assert metrics["ood/msp/far/auroc"] == metrics["ood/msp/photos/auroc"]
    assert 0 <= metrics["units/dead"] <= metrics["units/most_dead"] <= 1 and 0 < metrics["units/rank_share"] <= 1
    assert math.isfinite(metrics["stale_update/current/relative"]) and "stale_update/held_out" in metrics
    for make in (lambda: Units(num=1), lambda: StaleUpdate(rate=0.0)):
        with pytest.raises(ValueError, match=r"(at least|above)"):
            make()
