"""Advanced Dropout against the released formula, sample by sample, in fp64."""

import math

import pytest
import torch

from attnlab.regularizers.advanced_dropout import AdvancedDropout
from tests.golden_numbers import golden


def slow(module, x):
    """The paper's formula with loops over samples and units; draws the same noise."""
    rows = x.flatten(1)
    mus, sigmas = [], []
    for row in rows:
        h = [(w @ row).item() + module.bias_h.item() for w in module.weight_h]
        mus.append(sum(a * b.item() for a, b in zip(h, module.weight_mu[0], strict=True)) + module.bias_mu.item())
        raw = sum(a * b.item() for a, b in zip(h, module.weight_sigma[0], strict=True)) + module.bias_sigma.item()
        sigmas.append(math.log1p(math.exp(raw)))
    mu, sigma = sum(mus) / len(mus), sum(sigmas) / len(sigmas)
    noise = torch.randn_like(x)
    out = torch.zeros_like(x)
    for i in range(x.numel()):
        mask = 1 / (1 + math.exp(-(mu + sigma * noise.flatten()[i].item())))
        mean = 1 / (1 + math.exp(-mu / math.sqrt(1 + math.pi / 8 * sigma**2)))
        out.view(-1)[i] = x.flatten()[i] * mask / mean
    return out


def test_equals_the_authors_code(monkeypatch: pytest.MonkeyPatch) -> None:
    gold = golden("components", "advdrop_")
    state = {key.removeprefix("p_"): value for key, value in gold.items() if key.startswith("p_")}
    hidden, size = state["weight_h"].shape
    module = AdvancedDropout((size,), reduction=size // hidden).double()
    module.load_state_dict(state)
    monkeypatch.setattr(torch, "randn_like", lambda x, **options: gold["eps"].to(options.get("dtype", x.dtype)))
    x = gold["x"].requires_grad_()
    y = module(x)
    close = {"rtol": 1e-3, "atol": 1e-3}  # the authors write 3.14 for pi, in the divisor
    torch.testing.assert_close(y, gold["y"], **close)
    h = x.detach() @ state["weight_h"].T + state["bias_h"]
    mu, raw = (torch.nn.functional.linear(h, state[f"weight_{name}"], state[f"bias_{name}"]) for name in ("mu", "sigma"))
    torch.testing.assert_close(torch.stack([mu.mean(), torch.nn.functional.softplus(raw).mean()]), gold["mu_sigma"], rtol=1e-12, atol=0)
    names, parameters = zip(*module.named_parameters())
    grads = torch.autograd.grad((y * gold["gy"]).sum(), [x, *parameters])
    for name, grad in zip(["gx", *(f"g_{name}" for name in names)], grads, strict=True):
        torch.testing.assert_close(grad, gold[name], **close)


@pytest.mark.parametrize("shape, reduction", [((32,), 16), ((4, 3, 3), 8), ((5,), 5), ((6,), 1)])
def test_equals_the_loop(shape, reduction):
    torch.manual_seed(0)
    module = AdvancedDropout(shape, reduction=reduction).double()
    x = torch.randn(3, *shape, dtype=torch.float64) * 4
    torch.manual_seed(1)
    y = module(x)
    torch.manual_seed(1)
    torch.testing.assert_close(y, slow(module, x))


def test_parameters_start_as_in_the_released_code():
    module = AdvancedDropout((64,))
    assert {name: tuple(p.shape) for name, p in module.named_parameters()} == {
        "weight_h": (4, 64), "bias_h": (1,), "weight_mu": (1, 4), "bias_mu": (1,), "weight_sigma": (1, 4), "bias_sigma": (1,),
    }  # fmt: skip
    for name in ("weight_h", "weight_mu", "weight_sigma", "bias_h"):
        values = torch.stack([getattr(AdvancedDropout((64,)), name) for _ in range(20)]).flatten()
        assert values.min() >= 0 and values.max() < 0.01 and values.std() > 0.0015  # 0.01 / sqrt(12) = 0.0029
    assert module.bias_mu.item() == 0 and module.bias_sigma.item() == pytest.approx(1.2)


@pytest.mark.parametrize("mu", [-2.0, 0.0, 2.0])
def test_expectation_is_kept(mu):
    torch.manual_seed(0)
    module = AdvancedDropout((100,)).double()
    torch.nn.init.constant_(module.bias_mu, mu)
    y = module(torch.ones(2000, 100, dtype=torch.float64))
    assert abs(y.mean().item() - 1) < 0.05  # the divisor is an approximation of E[m]


def test_no_noise_gives_the_identity():
    module = AdvancedDropout((20,)).double()
    torch.nn.init.constant_(module.bias_sigma, -60.0)
    x = torch.rand(4, 20, dtype=torch.float64)
    torch.testing.assert_close(module(x), x, rtol=1e-12, atol=0)


def test_the_divisor_carries_no_gradient():
    torch.manual_seed(0)
    module = AdvancedDropout((20,)).double()
    torch.nn.init.constant_(module.bias_sigma, -60.0)  # y = sigmoid(mu) / stop(sigmoid(mu)) x
    x = torch.rand(4, 20, dtype=torch.float64)
    module(x).sum().backward()
    mu = torch.nn.functional.linear(x @ module.weight_h.T + module.bias_h, module.weight_mu, module.bias_mu).mean().item()
    expected = x.sum().item() * (1 - 1 / (1 + math.exp(-mu)))  # d log sigmoid
    assert module.bias_mu.grad.item() == pytest.approx(expected)
    assert all(p.grad is not None for p in module.parameters())


def test_only_the_mask_teaches_mu_and_sigma():
    torch.manual_seed(0)
    module = AdvancedDropout((20,), reduction=5).double()
    x = torch.randn(4, 20, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, 20, dtype=torch.float64)
    leaves = [x, *module.parameters()]
    torch.manual_seed(1)
    found = torch.autograd.grad((module(x) * weights).sum(), leaves)
    torch.manual_seed(1)
    h = x @ module.weight_h.T + module.bias_h
    mu = (h @ module.weight_mu.T + module.bias_mu).mean()
    sigma = (1 + (h @ module.weight_sigma.T + module.bias_sigma).exp()).log().mean()
    assert sigma > 1  # else its part of the divisor would not show
    divisor = 1 / (1 + math.exp(-mu.item() / math.sqrt(1 + math.pi / 8 * sigma.item() ** 2)))  # a number: no gradient
    y = x / (1 + (-mu - sigma * torch.randn_like(x)).exp()) / divisor
    for ours, expected in zip(found, torch.autograd.grad((y * weights).sum(), leaves), strict=True):
        torch.testing.assert_close(ours, expected)


def test_identity_in_eval():
    x = torch.randn(2, 32)
    assert AdvancedDropout((32,)).eval()(x) is x


def test_keeps_channels_last_and_traces():
    module = AdvancedDropout((3, 4, 4))
    x = torch.randn(6, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    torch.manual_seed(0)
    y = compiled(x)
    torch.manual_seed(0)
    assert torch.equal(y, module(x))
    assert y.is_contiguous(memory_format=torch.channels_last)
    assert module(x.bfloat16()).dtype == torch.bfloat16


@pytest.mark.parametrize("reduction", [0, 33])
def test_wrong_reduction(reduction):
    with pytest.raises(ValueError, match="reduction must be between 1 and the 32 features"):
        AdvancedDropout((32,), reduction=reduction)
