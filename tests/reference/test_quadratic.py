"""Quadratic convolution against the authors' numbers (fp64), the low-rank form against the full one, and its laws."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnlab.convolutions.quadratic import QuadraticConv2d, quadratic_conv2d
from tests.component_rules import check_rules, close
from tests.golden_numbers import golden

STORED = golden("components", "cqnn_")
PADS = {"valid1": (0, 0, 0, 0), "same1_neg": (1, 1, 1, 1), "same2": (1, 1, 1, 1)}


def plain(stride: int = 1) -> dict:
    return {"kernel_size": (3, 3), "stride": (stride, stride), "padding": (0, 0), "dilation": (1, 1)}


@pytest.mark.parametrize("name", PADS)
def test_equals_the_authors_code(name: str) -> None:
    x, q = STORED["x"].clone().requires_grad_(), STORED["q_chw"].clone().requires_grad_()
    y = quadratic_conv2d(F.pad(x, PADS[name]), q, geometry=plain(2 if name == "same2" else 1))
    y = -y if name.endswith("neg") else y
    close(y, STORED[f"{name}_y"])
    y.backward(STORED[f"{name}_gy"])
    close(x.grad, STORED[f"{name}_gx"])
    close(q.grad, STORED[f"{name}_gq_chw"])


def test_the_authors_order_of_a_patch_is_another() -> None:
    C = STORED["x"].shape[1]
    order = torch.arange(9 * C).view(3, 3, C).permute(2, 0, 1).flatten()  # theirs: row, column, channel; unfold's: channel first
    order = torch.cat([order, torch.tensor([9 * C])])
    assert torch.equal(STORED["q_hwc"][:, order][:, :, order], STORED["q_chw"])


def test_the_module_is_the_authors_with_their_padding() -> None:
    shape, out = tuple(STORED["x"].shape[1:]), len(STORED["q_chw"])
    module = QuadraticConv2d(shape, host=nn.Conv2d(shape[0], out, 3, padding=1), form="full").double()
    module.q.data = STORED["q_chw"]
    close(module(STORED["x"]), STORED["same1_neg_y"])
    module.negate = False
    close(module(STORED["x"]), -STORED["same1_neg_y"])


def test_with_only_a_last_row_and_column_it_is_a_convolution_and_symmetry_does_not_matter() -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(2, 3, 3, stride=2, padding=1).double(), torch.randn(2, 2, 6, 5, dtype=torch.float64)
    module = QuadraticConv2d((2, 6, 5), host=conv, form="full", negate=False).double()
    bound = (6 / (3 * 2 * 19)) ** 0.5
    assert module.q.shape == (3, 19, 19) and module.q.abs().max() <= bound and module.q.var().item() == pytest.approx(bound**2 / 3, rel=0.1)
    y = module(x)
    module.q.data = (module.q.data + module.q.data.mT) / 2
    close(module(x), y.detach())
    with torch.no_grad():
        module.q.zero_()
        module.q[:, -1, :-1], module.q[:, -1, -1] = conv.weight.flatten(1), conv.bias
    close(module(x), conv(x).detach())


def test_low_rank_form_starts_as_the_convolution_and_equals_the_full_form_of_its_factors() -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(2, 3, 3, padding=1).double(), torch.randn(2, 2, 6, 5, dtype=torch.float64)
    module = QuadraticConv2d((2, 6, 5), host=conv, rank=2).double()
    assert torch.equal(module(x), conv(x))
    assert sum(p.numel() for p in module.parameters()) == 3 * 18 + 3 + 2 * 3 * 18 + 6
    nn.init.normal_(module.scale)
    a_ORP = module.factors.weight.detach().flatten(1).unflatten(0, (3, 2))
    q = torch.zeros(3, 19, 19, dtype=torch.float64)
    q[:, :-1, :-1] = torch.einsum("or,orp,orq->opq", module.scale.detach(), a_ORP, a_ORP)
    q[:, -1, :-1], q[:, -1, -1] = conv.weight.detach().flatten(1), conv.bias.detach()
    close(quadratic_conv2d(x, q, geometry=module.geometry), module(x).detach())


@pytest.mark.parametrize("form", ["low_rank", "full"])
def test_rules(form: str) -> None:
    def build() -> nn.Module:
        return QuadraticConv2d((3, 5, 4), host=nn.Conv2d(3, 4, 3, padding=1, bias=False), form=form)

    check_rules(build, torch.randn(3, 3, 5, 4))


@pytest.mark.parametrize("options", [{"form": "cubic"}, {"rank": 0}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        QuadraticConv2d((4, 5, 5), host=nn.Conv2d(4, 4, 3), **options)
    with pytest.raises(ValueError, match="Linear"):
        QuadraticConv2d((4, 5, 5), host=nn.Linear(4, 4))
