"""LRP against captum's numbers, and its laws on networks that captum cannot explain."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from attnlab.backbones.resnet import resnet18
from attnlab.explainers.input_x_gradient import InputXGradient
from attnlab.explainers.lrp import LRP
from attnlab.network import Network
from tests.golden_numbers import golden
from tests.reference.explained import Functional, small

STORED = {
    "eps1e-9": {},
    "eps0.01": {"epsilon": 0.01},
    "gamma0.25": {"rule": "gamma", "gamma": 0.25},
    "alpha1beta0": {"rule": "alpha1beta0"},
}


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return golden("explainers")


@pytest.mark.parametrize("functional", [False, True])
@pytest.mark.parametrize("name", STORED)
def test_numbers_are_captum_s(stored: dict[str, Tensor], name: str, functional: bool) -> None:
    network = small(Functional()) if functional else small()
    found = LRP(**STORED[name]).attribute(network, stored["x"], stored["target"])
    torch.testing.assert_close(found, stored[f"lrp_{name}"], rtol=1e-8, atol=1e-10)


@pytest.fixture(scope="module")
def residual() -> Network:
    """A ResNet whose batch norms are no identities, in fp64."""
    torch.manual_seed(0)
    network = Network(resnet18(3, (3, 8, 8), width=4), shape=(3, 8, 8), num_classes=3).double()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, std=0.1)
    return network.eval()


def test_with_a_small_epsilon_it_is_input_x_gradient(residual: Network) -> None:
    x, target = torch.randn(2, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 2])
    found = LRP(epsilon=1e-14).attribute(residual, x, target)
    torch.testing.assert_close(found, InputXGradient().attribute(residual, x, target), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("rule", ["epsilon", "gamma"])
def test_without_biases_relevance_is_conserved(residual: Network, rule: str) -> None:
    x, target = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 2])
    found = LRP(rule=rule, epsilon=1e-13, zero_bias=True).attribute(residual, x, target).sum((1, 2, 3))
    expected = residual(x).logits.gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rule", ["gamma", "alpha1beta0"])
def test_a_batch_norm_after_a_convolution_is_merged_with_it(rule: str) -> None:
    torch.manual_seed(0)
    convs = [nn.Conv2d(3, 4, 3, stride=2, bias=False).double(), nn.Conv2d(4, 6, 3, padding=1, groups=2).double()]
    norms = [nn.BatchNorm2d(4).double().eval(), nn.BatchNorm2d(6).double().eval()]
    for norm in norms:
        nn.init.normal_(norm.running_mean, std=0.1)
        nn.init.uniform_(norm.running_var, 0.5, 2)
        nn.init.normal_(norm.weight)  # of both signs
        nn.init.normal_(norm.bias, std=0.1)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2).double())
    apart = nn.Sequential(convs[0], norms[0], nn.ReLU(), convs[1], norms[1], nn.ReLU(), head)
    merged = [torch.nn.utils.fusion.fuse_conv_bn_eval(conv.eval(), norm) for conv, norm in zip(convs, norms)]
    x, target = torch.randn(2, 3, 9, 9, dtype=torch.float64), torch.tensor([0, 1])
    expected = LRP(rule=rule).attribute(nn.Sequential(merged[0], nn.ReLU(), merged[1], nn.ReLU(), head), x, target)
    torch.testing.assert_close(LRP(rule=rule).attribute(apart, x, target), expected, rtol=1e-8, atol=1e-10)


def test_a_batch_norm_by_itself_shares_its_shift_or_leaves_it_out() -> None:
    """Before any convolution, and of vectors; relevance of y = scale x + shift is R x or, without the shift, R scale x / (scale x)."""
    torch.manual_seed(0)
    for norm, shape in ((nn.BatchNorm2d(3), (2, 3, 2, 2)), (nn.BatchNorm1d(3), (2, 3))):
        norm = norm.double().eval()
        for tensor in (norm.weight, norm.bias, norm.running_mean):
            nn.init.normal_(tensor)
        x, target = torch.randn(shape, dtype=torch.float64), torch.tensor([0, 2])
        network = nn.Sequential(norm, nn.Flatten(), nn.Linear(x[0].numel(), 3, bias=False).double())
        shift_C = (norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
        y = norm(x).detach()
        relevance = (y * network[2].weight.detach()[target].view_as(y)).double()
        for zero_bias in (False, True):
            found = LRP(epsilon=1e-13, zero_bias=zero_bias).attribute(network, x, target)
            scaled = y - shift_C.view(1, 3, *[1] * (x.ndim - 2))
            expected = relevance if zero_bias and x.ndim == 4 else relevance * scaled / y
            torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


class Gated(nn.Module):
    """(w * x summed) * sigmoid(u * x summed), then a SiLU and a product of two values, each for a class."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Linear(4, 2, bias=False).double()

    def forward(self, x: Tensor) -> Tensor:
        y = self.w(x.flatten(1))
        return torch.stack([y[:, 0] * torch.sigmoid(y[:, 1]), F.silu(y[:, 0].clone(), inplace=True), y[:, 0] * y[:, 1]], 1)


def test_gates_are_constants_and_products_are_shared() -> None:
    torch.manual_seed(0)
    network, x = Gated(), torch.randn(3, 1, 2, 2, dtype=torch.float64)
    for c in range(3):
        found = LRP(epsilon=1e-13).attribute(network, x, torch.full((3,), c)).flatten(1)
        y, parts = network.w(x.flatten(1)), x.flatten(1)[:, None] * network.w.weight
        share = parts / y[:, :, None]
        expected = share[:, 0] if c < 2 else share.mean(1)
        torch.testing.assert_close(found, network(x)[:, c, None] * expected, rtol=1e-8, atol=1e-10)


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="rule must be one of epsilon, gamma, alpha1beta0, got 'flat'"):
        LRP(rule="flat")
    with pytest.raises(ValueError, match="epsilon must be positive"):
        LRP(epsilon=0)
