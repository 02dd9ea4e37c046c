"""Bipolar morphological convolution against the authors' numbers (fp64), a slow loop, and the linear convolution it stands for."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnlab.backbones.resnet import resnet18
from attnlab.convolutions import bipolar
from attnlab.convolutions.bipolar import BipolarConv2d, bipolar_conv2d, log_weights
from attnlab.placement import place
from tests.component_rules import check_rules, close
from tests.golden_numbers import golden

STORED = golden("components", "bm_")
PADS = {"valid1": (0, 0, 0, 0), "same1": (1, 1, 1, 1), "same2": (1, 1, 0, 1), "valid1_d1e-6": (0, 0, 0, 0)}  # left right top bottom


def plain(stride: int = 1) -> dict:
    return {"kernel_size": (3, 3), "stride": (stride, stride), "padding": (0, 0), "dilation": (1, 1)}


@pytest.mark.parametrize("name", PADS)
def test_equals_the_authors_code(name: str) -> None:
    v1, v2 = log_weights(STORED["w"])
    close(v1, STORED["v1"])
    close(v2, STORED["v2"])
    x, v1, v2 = (value.clone().requires_grad_() for value in (STORED["x"], v1, v2))
    options = {"geometry": plain(2 if name == "same2" else 1), "delta": 1e-6 if name.endswith("1e-6") else 0.1}
    y = bipolar_conv2d(F.pad(x, PADS[name]), v1, v2, STORED["b"], **options)
    close(y, STORED[f"{name}_y"])
    y.backward(STORED[f"{name}_gy"])
    for value, key in ((x, "gx"), (v1, "gv1"), (v2, "gv2")):
        close(value.grad, STORED[f"{name}_{key}"])


def test_equals_a_loop_with_padding_stride_and_dilation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bipolar, "CHUNK", 100)  # the output channels one by one
    torch.manual_seed(0)
    host = nn.Conv2d(2, 3, 3, stride=2, padding=2, dilation=2, bias=True).double()
    module, x = BipolarConv2d((2, 7, 6), host=host), torch.randn(2, 2, 7, 6, dtype=torch.float64)
    y, padded = module(x), F.pad(x, (2, 2, 2, 2))
    with torch.no_grad():  # a shorter way
        assert torch.equal(module(x), y)
    assert y.shape == host(x).shape
    for o in range(3):
        for i in range(y.shape[2]):
            for j in range(y.shape[3]):
                patch = padded[1, :, 2 * i : 2 * i + 5 : 2, 2 * j : 2 * j + 5 : 2].flatten().tolist()
                w = host.weight[o].flatten().tolist()
                total = host.bias[o].item()
                for s, t in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
                    total += s * t * max(math.exp(math.log(max(s * p, 0.1)) + math.log(max(t * q, 1e-6))) for p, q in zip(patch, w))
                assert y[1, o, i, j].item() == pytest.approx(total, abs=1e-9)


def test_a_patch_of_one_value_is_convolved_exactly() -> None:
    host = nn.Conv2d(2, 4, 3, bias=True).double()
    x = torch.zeros(5, 2, 3, 3, dtype=torch.float64)
    for b, value in enumerate((1.0, -2.0, 0.5, 3.0, -0.3)):
        x[b, b % 2, b % 3, 1] = value
    torch.testing.assert_close(BipolarConv2d((2, 3, 3), host=host, delta=1e-12)(x), host(x), rtol=0, atol=1e-5)


def test_converts_a_trained_network_in_place() -> None:
    torch.manual_seed(0)
    model = resnet18(3, (3, 8, 8), width=4).eval()
    trained = {name: value.clone() for name, value in model.state_dict().items()}
    place(model, {"bipolar": {"at": "layer*.*.conv*", "how": "replace", "module": BipolarConv2d}}, shape=(3, 8, 8))
    found = model.layer3[1].conv2
    assert isinstance(found, BipolarConv2d) and not model.training
    back = found.v1.exp() - found.v2.exp()
    torch.testing.assert_close(back, trained["layer3.1.conv2.weight"], rtol=1e-5, atol=2e-6)
    assert model(torch.randn(2, 3, 8, 8)).isfinite().all()


def test_rules() -> None:
    torch.manual_seed(0)
    host = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    check_rules(lambda: BipolarConv2d((3, 5, 4), host=host), torch.randn(3, 3, 5, 4))


@pytest.mark.parametrize(
    ("host", "words"),
    [
        (nn.Conv2d(4, 4, 3, groups=2), "groups=2"),
        (nn.Linear(4, 4), "Linear"),
        (None, "replace"),
        (nn.Conv2d(4, 4, 3, padding="same"), "padding=same"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"), "reflect"),
    ],
)
def test_refusals(host: nn.Module | None, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        BipolarConv2d((4, 5, 5), host=host)
    with pytest.raises(ValueError, match="delta"):
        BipolarConv2d((4, 5, 5), host=nn.Conv2d(4, 4, 3), delta=0)
