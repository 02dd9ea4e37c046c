"""The repulsion of FoRDE against the authors' code, values and gradients by all parameters, and its laws."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from attnlab.losses.forde import input_gradient_kernel, input_gradient_repulsion, principal_axes
from tests.golden_numbers import golden

NAMES = ("w1", "b1", "w2", "b2")


def gradients(parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (M, B, K) and gradients by x of the true class's logit (M, B, D) of tanh networks."""
    x_MBD = x.expand(len(parameters["w1"]), *x.shape).clone().requires_grad_()
    hidden = torch.tanh(x_MBD @ parameters["w1"].mT + parameters["b1"][:, None])
    logits = hidden @ parameters["w2"].mT + parameters["b2"][:, None]
    true = logits.gather(2, y.expand(len(logits), -1)[..., None]).sum()
    return logits, torch.autograd.grad(true, x_MBD, create_graph=True)[0]


@pytest.mark.parametrize("variant", ["identity", "pca"])
def test_equals_the_released_code(variant: str) -> None:
    gold = golden("components", "forde_")
    parameters = {name: gold[name].requires_grad_() for name in NAMES}
    logits, found = gradients(parameters, gold["x"], gold["y"])
    torch.testing.assert_close(found.detach(), gold["input_grad"], rtol=1e-12, atol=1e-13)
    space = {"basis_DD": gold["eigvec"], "scale_D": gold["sqrt_eigval"]} if variant == "pca" else {}
    space["eps"] = gold[f"{variant}_eps"].item()
    for name, value in zip(("dist", "bandwidth", "kernel"), input_gradient_kernel(found, **space)):
        torch.testing.assert_close(value.detach(), gold[f"{variant}_{name}"], rtol=1e-11, atol=1e-13)
    width = input_gradient_kernel(found, **space)[1].detach()
    torch.testing.assert_close(width.mean() * math.log(3), gold[f"{variant}_median"], rtol=1e-11, atol=0)
    repulsion = input_gradient_repulsion(found, **space)
    torch.testing.assert_close(repulsion.detach(), gold[f"{variant}_repulsion"], rtol=1e-12, atol=1e-13)
    loss = sum(F.cross_entropy(logits_BK, gold["y"]) for logits_BK in logits) + repulsion
    decay = gold["wd_lr_mom"][0]
    for name, gradient in zip(NAMES, torch.autograd.grad(loss, [*parameters.values()])):
        expected = gold[f"{variant}_grad_{name}"]
        torch.testing.assert_close(gradient + decay * parameters[name].detach(), expected, rtol=1e-10, atol=1e-12)


def test_laws() -> None:
    same = torch.randn(1, 6, 5, dtype=torch.float64).expand(4, 6, 5).clone().requires_grad_()
    repulsion = input_gradient_repulsion(same)
    assert repulsion.item() == pytest.approx(4 / 6 * math.log(4))
    assert torch.autograd.grad(repulsion, same)[0].abs().max() < 1e-9
    apart = torch.randn(3, 6, 5, dtype=torch.float64)
    scaled = apart * torch.tensor([1.0, 7.0, 0.1], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(input_gradient_repulsion(apart), input_gradient_repulsion(scaled), rtol=1e-6, atol=0)
    with pytest.raises(ValueError, match="there is one"):
        input_gradient_repulsion(apart[:1])


def test_the_bandwidth_of_an_even_number_of_members_is_the_mean_of_the_middle_two() -> None:
    d_MMB, width_MB, _ = input_gradient_kernel(torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0)).double())
    torch.testing.assert_close(width_MB, d_MMB.sort(0).values[1:3].mean(0) / math.log(4))


def test_the_principal_axes_are_those_of_all_batches_together() -> None:
    x = torch.randn(20, 1, 2, 2, generator=torch.Generator().manual_seed(0)).double() * torch.tensor([3.0, 1.0, 2.0, 0.5]).view(2, 2) + 4
    axes, variances = principal_axes([x[:7], x[7:]])
    covariance = x.flatten(1).T.cov(correction=0)
    torch.testing.assert_close(axes @ variances.diag() @ axes.T, covariance)
    assert variances.diff().max() < 0
