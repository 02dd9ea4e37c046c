"""Occlusion against captum where its windows agree, a slow loop, and a linear network."""

import pytest
import torch
from torch import Tensor, nn

from attnlab.explainers.occlusion import Occlusion
from tests.golden_numbers import golden
from tests.reference.explained import small


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return golden("explainers")


@pytest.mark.parametrize("values", [2**20, 20000])
def test_maps_are_a_slow_loop(stored: dict[str, Tensor], values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnlab.explainers.attribution.VALUES", values)
    network, x, target = small(), stored["x"][2:, :, :, :20].contiguous(), stored["target"][2:]
    total, count = torch.zeros(2, 32, 20, dtype=torch.float64), torch.zeros(32, 20)
    starts = {32: [0, 4, 8, 12, 16, 20, 24], 20: [0, 4, 8, 12]}
    for i in starts[32]:
        for j in starts[20]:
            hidden = x.clone()
            hidden[:, :, i : i + 8, j : j + 8] = 0
            drop = (network(x).logits - network(hidden).logits).gather(1, target[:, None])[:, 0]
            total[:, i : i + 8, j : j + 8] += drop[:, None, None]
            count[i : i + 8, j : j + 8] += 1
    found = Occlusion(window=0.4, stride=0.5).explain(network, x, target)
    torch.testing.assert_close(found[:, 0], total / count, rtol=1e-10, atol=1e-12)


def test_maps_are_captum_s(stored: dict[str, Tensor]) -> None:
    captum = pytest.importorskip("captum.attr")
    network, x, target = small(), stored["x"], stored["target"]
    expected = captum.Occlusion(network.backbone).attribute(x, (3, 8, 8), strides=(3, 4, 4), target=target)[:, :1]
    torch.testing.assert_close(Occlusion(window=0.25).explain(network, x, target), expected.double(), rtol=1e-6, atol=1e-7)


def test_windows_cover_the_image() -> None:
    for height, width in ((7, 7), (5, 13), (28, 28), (1, 3)):
        for window in (0.1, 0.2, 0.5, 1.0):
            windows = Occlusion(window=window, stride=1.0).windows(height, width)
            assert windows.shape[1:] == (height, width) and windows.sum(0).min() >= 1
            assert windows.sum((1, 2)).unique().numel() == 1


class Linear(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x[:, 0, 1, 2], -x.sum((1, 2, 3))], 1)


def test_windows_of_a_pixel_on_a_linear_network_give_input_x_weight() -> None:
    x = torch.randn(2, 1, 4, 5)
    found = Occlusion(window=0.01).explain(Linear(), x, torch.tensor([0, 1]))
    expected = torch.zeros(4, 5)
    expected[1, 2] = x[0, 0, 1, 2]
    torch.testing.assert_close(found[0, 0], expected)
    torch.testing.assert_close(found[1], -x[1], rtol=1e-4, atol=1e-5)


def test_what_is_refused() -> None:
    for options in ({"window": 0.0}, {"stride": 2.0}):
        with pytest.raises(ValueError, match=r"must be in \(0, 1\]"):
            Occlusion(**options)
