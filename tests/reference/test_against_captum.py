"""Our gradient explainers and LRP against captum's, at fp64 on one network with module ReLUs."""

import pytest
import torch
from torch import Tensor

from attnlab.explainers.gradient import Gradient
from attnlab.explainers.guided_backprop import GuidedBackprop
from attnlab.explainers.ig import IntegratedGradients
from attnlab.explainers.input_x_gradient import InputXGradient
from attnlab.explainers.lrp import LRP
from tests.golden_numbers import golden
from tests.reference.explained import Small

captum = pytest.importorskip("captum.attr")
pytestmark = pytest.mark.filterwarnings("ignore:Input Tensor 0 did not already require gradients", "ignore:Setting ")


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return golden("explainers")


def network() -> Small:
    found = Small(inplace=False).double()  # captum's guided backprop and LRP take no ReLU that works in place
    found.load_state_dict(golden("explainers", "sd_"))
    return found.eval()


def test_gradient(stored: dict[str, Tensor]) -> None:
    expected = captum.Saliency(network()).attribute(stored["x"], stored["target"], abs=False)
    torch.testing.assert_close(Gradient().attribute(network(), stored["x"], stored["target"]), expected, rtol=1e-12, atol=1e-15)


def test_input_x_gradient(stored: dict[str, Tensor]) -> None:
    expected = captum.InputXGradient(network()).attribute(stored["x"], stored["target"])
    torch.testing.assert_close(InputXGradient().attribute(network(), stored["x"], stored["target"]), expected, rtol=1e-12, atol=1e-15)


def test_guided_backprop(stored: dict[str, Tensor]) -> None:
    expected = captum.GuidedBackprop(network()).attribute(stored["x"], stored["target"])
    torch.testing.assert_close(GuidedBackprop().attribute(network(), stored["x"], stored["target"]), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("steps", [1, 7])
def test_integrated_gradients_from_another_baseline(stored: dict[str, Tensor], steps: int) -> None:
    """Captum keeps the weights of the rule in float32."""
    baseline = stored["x"].flip(0)
    expected = captum.IntegratedGradients(network()).attribute(stored["x"], baseline, target=stored["target"], n_steps=steps)
    found = IntegratedGradients(steps=steps).attribute(network(), stored["x"], stored["target"], baseline=baseline)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_lrp(stored: dict[str, Tensor]) -> None:
    expected = captum.LRP(network()).attribute(stored["x"], target=stored["target"])
    torch.testing.assert_close(LRP().attribute(network(), stored["x"], stored["target"]), expected, rtol=1e-8, atol=1e-10)
