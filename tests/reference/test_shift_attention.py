"""The shift attention layer against its equation (fp64), the schedule, and the shifts it becomes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from attnlab.backbones.resnet import resnet18
from attnlab.convolutions.shift_attention import ShiftAttentionConv2d, ShiftConv2d, harden
from attnlab.placement import place
from tests.component_rules import check_rules, close

FORMS = [{"padding": 1}, {"stride": 2, "padding": (2, 1), "dilation": (2, 1), "bias": False}]


def layer_of(**options) -> ShiftAttentionConv2d:
    torch.manual_seed(0)
    return ShiftAttentionConv2d((3, 7, 6), host=nn.Conv2d(3, 4, 3, **options)).double()


@pytest.mark.parametrize("options", FORMS)
@torch.no_grad()
def test_equals_a_loop_over_taps(options: dict) -> None:
    layer, x = layer_of(**options), torch.randn(2, 3, 7, 6).double()
    y = layer(x, torch.tensor(0.5))
    temperature, w = math.sqrt(6.7 * 0.02), torch.empty_like(layer.weight)
    for c in range(3):
        a = layer.taps[c].tolist()
        mean = sum(a) / 9
        std = math.sqrt(sum((v - mean) ** 2 for v in a) / 9)
        powers = [math.exp(v / std / temperature) for v in a]
        for t in range(9):
            w[:, c, t // 3, t % 3] = layer.weight[:, c, t // 3, t % 3] * (powers[t] / sum(powers))
    options = {key: value for key, value in options.items() if key != "bias"}
    torch.testing.assert_close(y, F.conv2d(x, w, layer.bias, **options), rtol=0, atol=1e-6)  # progress is fp32
    torch.testing.assert_close(layer.temperature, torch.tensor(temperature).double(), rtol=0, atol=1e-6)


def test_equal_taps_are_chosen_alike() -> None:
    layer = layer_of(padding=1)
    layer.taps.data[0] = 0.3
    close(layer.selection(layer.temperature)[0], torch.full((9,), 1 / 9).double())


def test_the_temperature_falls_in_training_and_is_kept() -> None:
    layer, x = layer_of(padding=1), torch.randn(2, 3, 7, 6).double()
    sharp = []
    for progress in (0.0, 0.5, 1.0):
        layer.train()(x, torch.tensor(progress))
        sharp.append(layer.statistics["sharpness"].item())
        kept = layer.temperature.item()
        layer.eval()(x)
        assert layer.temperature.item() == kept == pytest.approx(6.7 * (0.02 / 6.7) ** progress)
        assert layer.statistics["sharpness"].item() == pytest.approx(sharp[-1])
    assert 1 / 9 < sharp[0] < 0.16 and sharp[0] < sharp[1] < sharp[2]
    close(layer.selection(layer.temperature).sum(1), torch.ones(3).double())


@pytest.mark.parametrize("options", FORMS)
def test_cold_it_is_shifts_and_a_1x1_convolution(options: dict) -> None:
    layer, x = layer_of(**options).eval(), torch.randn(2, 3, 7, 6).double()
    layer.temperature.fill_(1e-4)
    hard = layer.hardened()
    close(hard(x), layer(x).detach(), atol=1e-6)
    assert sum(p.numel() for p in hard.parameters() if p.ndim > 1) == 3 * 4 and hard.tap.shape == (3,) and not hard.training
    layer.weight.data.zero_()  # it shares nothing
    assert hard.weight.any()


def test_a_network_is_hardened_in_place() -> None:
    torch.manual_seed(0)
    model, x = resnet18(3, (3, 8, 8), width=4).double().eval(), torch.randn(2, 3, 8, 8).double()
    entry = {"shift": {"at": "layer*.0.conv*", "how": "replace", "module": ShiftAttentionConv2d}}
    place(model, entry, shape=(3, 8, 8))
    for layer in model.modules():
        if isinstance(layer, ShiftAttentionConv2d):
            layer.temperature.fill_(1e-4)
    y = model(x).detach()
    assert harden(model) == [f"layer{stage}.0.conv{n}" for stage in (1, 2, 3, 4) for n in (1, 2)]
    assert isinstance(model.layer2[0].conv1, ShiftConv2d) and harden(model) == []
    close(model(x), y, atol=1e-6)


def test_rules() -> None:
    torch.manual_seed(0)
    host = nn.Conv2d(3, 4, 3, padding=1, bias=False)
    check_rules(lambda: ShiftAttentionConv2d((3, 5, 4), host=host), torch.randn(3, 3, 5, 4), torch.tensor(0.3))


@pytest.mark.parametrize("options", [{"start": 0.0}, {"end": -1.0}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        ShiftAttentionConv2d((4, 5, 5), host=nn.Conv2d(4, 4, 3), **options)
    with pytest.raises(ValueError, match="1x1"):
        ShiftAttentionConv2d((4, 5, 5), host=nn.Conv2d(4, 4, 1))
    with pytest.raises(ValueError, match="Linear"):
        ShiftAttentionConv2d((4, 5, 5), host=nn.Linear(4, 4))
