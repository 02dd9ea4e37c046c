"""Gradient, input x gradient and integrated gradients against captum's numbers, autograd and their laws."""

import pytest
import torch
from torch import Tensor, nn

from attnlab.explainers.gradient import Gradient
from attnlab.explainers.ig import IntegratedGradients
from attnlab.explainers.input_x_gradient import InputXGradient
from tests.golden_numbers import golden
from tests.reference.explained import small


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return golden("explainers")


def test_gradient_is_captum_s(stored: dict[str, Tensor]) -> None:
    x, target = stored["x"], stored["target"]
    torch.testing.assert_close(Gradient().attribute(small(), x, target), stored["grad"], rtol=1e-12, atol=1e-15)
    expected = stored["grad"].abs().max(1, keepdim=True).values
    torch.testing.assert_close(Gradient().explain(small(), x, target), expected, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(InputXGradient().attribute(small(), x, target), x * stored["grad"], rtol=1e-12, atol=1e-15)


def test_integrated_gradients_are_captum_s(stored: dict[str, Tensor]) -> None:
    x, target = stored["x"], stored["target"]
    found = IntegratedGradients().attribute(small(), x, target)
    torch.testing.assert_close(found, stored["ig"], rtol=0, atol=1e-8)
    torch.testing.assert_close(IntegratedGradients().explain(small(), x, target), found.sum(1, keepdim=True))


def test_integrated_gradients_from_black_are_the_sum_of_smooth_taylor_s_code(stored: dict[str, Tensor]) -> None:
    """Theirs is a Riemann sum, of the right ends of 50 steps; what ours differs in is the error of that sum."""
    x, target, network = stored["x"], stored["target"], small()
    mean, std = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    black = (-torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64))[:, None, None]
    points = [Gradient().attribute(network, black + n / 50 * (x - black), target) for n in range(1, 51)]
    torch.testing.assert_close((x - black) * sum(points) / 50, stored["ig_black"], rtol=1e-8, atol=1e-12)
    found = IntegratedGradients().attribute(network, x, target, baseline=black)
    assert (found - stored["ig_black"]).norm() < 0.05 * found.norm()


def test_integrated_gradients_are_complete_from_any_baseline(stored: dict[str, Tensor]) -> None:
    x, target, network = stored["x"], stored["target"], small()
    for baseline in (0.0, -1.5, stored["x"].flip(0)):
        found = IntegratedGradients(steps=300).attribute(network, x, target, baseline=baseline)
        change = network(x).logits - network(torch.zeros_like(x) + baseline).logits
        torch.testing.assert_close(found.sum((1, 2, 3)), change.gather(1, target[:, None])[:, 0], rtol=0, atol=0.01)


def test_a_polynomial_is_integrated_exactly() -> None:
    """n Gauss-Legendre points are exact up to degree 2n - 1: the gradient of x^4 has degree 3, so two points do."""

    class Power(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x**4).flatten(1)

    x = torch.randn(3, 1, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = IntegratedGradients(steps=2).attribute(Power(), x, torch.tensor([0, 1, 3]))
    expected = (x**4).flatten(1) * torch.eye(4, dtype=torch.float64)[[0, 1, 3]]
    torch.testing.assert_close(found, expected.view_as(x), rtol=1e-12, atol=1e-12)


def test_input_x_gradient_of_a_network_without_biases_sums_to_the_logit(stored: dict[str, Tensor]) -> None:
    network = small()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    x, target = stored["x"], stored["target"]
    found = InputXGradient().explain(network, x, target).sum((1, 2, 3))
    torch.testing.assert_close(found, network(x).logits.gather(1, target[:, None])[:, 0], rtol=1e-10, atol=1e-12)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
        IntegratedGradients(steps=0)
