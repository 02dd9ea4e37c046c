"""Grad-CAM++, HiResCAM, LayerCAM and Zoom-CAM against the numbers of the grad-cam library and the authors' classes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from attnlab.explainers.gradcam_pp import GradCAMPlusPlus
from attnlab.explainers.hirescam import HiResCAM
from attnlab.explainers.layercam import LayerCAM
from attnlab.explainers.zoom_cam import ZoomCAM, _zoomed
from attnlab.network import Network
from tests.backbones.test_backbones import CASES
from tests.golden_numbers import golden
from tests.reference.explained import Functional, drawn, hooks, small

PLACES = {"relu1": "features.1", "relu2": "features.4", "relu3": "features.7"}


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return golden("explainers")


@pytest.mark.parametrize("name", ["relu3", "relu2"])
@pytest.mark.parametrize(("cam", "key"), [(GradCAMPlusPlus, "gradcampp"), (HiResCAM, "hirescam"), (LayerCAM, "layercam")])
def test_maps_are_the_library_s(stored: dict[str, Tensor], cam: type, key: str, name: str) -> None:
    found = cam(at=PLACES[name]).explain(small(), stored["x"], stored["target"])
    raw = stored[f"{key}_{name}_raw"][:, None].relu()
    torch.testing.assert_close(found, F.interpolate(raw, size=(32, 32), mode="bilinear"), rtol=1e-10, atol=1e-12)
    if name == "relu3":
        torch.testing.assert_close(drawn(found).float(), stored[f"{key}_relu3_up"], rtol=0, atol=1e-5)
        if cam is LayerCAM:
            torch.testing.assert_close(raw[:, 0], stored["layercam_torchcam_relu3"], rtol=1e-6, atol=1e-9)


def test_the_mean_over_places_is_the_library_s_hirescam_of_three(stored: dict[str, Tensor]) -> None:
    found = torch.stack([ZoomCAM(at=place).explain(small(), stored["x"], stored["target"]) for place in PLACES.values()])
    torch.testing.assert_close(drawn(found.mean(0)).float(), stored["hirescam_mean3_up"], rtol=0, atol=1e-5)


def test_a_gradient_of_one_counts_as_any_other() -> None:
    maps = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)).abs()
    alpha = 1 / (2 + maps.sum((2, 3), keepdim=True) + 1e-6)
    expected = (16 * alpha * maps).sum(1, keepdim=True)
    torch.testing.assert_close(GradCAMPlusPlus(at="features").combine(maps, torch.ones_like(maps)), expected)


def test_layers_of_zoom_cam_are_the_authors(stored: dict[str, Tensor]) -> None:
    for name, place in PLACES.items():
        found = ZoomCAM(at=place).explain(small(), stored["x"], stored["target"])
        expected = _zoomed(stored[f"zoomcam_M_{name}"][:, None], (32, 32))
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_zoom_cam_is_the_paper_s_formula(stored: dict[str, Tensor]) -> None:
    network, x, target = small(), stored["x"], stored["target"]
    assert ZoomCAM().places(network, (3, 32, 32)) == list(PLACES.values())
    before = hooks(network)
    for at in (None, list(PLACES.values())[::-1], [*PLACES.values(), "features.7"]):
        torch.testing.assert_close(ZoomCAM(at=at).explain(network, x, target)[:, 0], stored["zoomcam"], rtol=1e-10, atol=1e-12)
    assert hooks(network) == before


def test_a_further_place_never_lowers_a_map(stored: dict[str, Tensor]) -> None:
    x, target = stored["x"], stored["target"]
    less, more = (ZoomCAM(at=at).explain(small(), x, target) for at in (["features.7"], ["features.7", "features.4"]))
    assert (more >= less).all() and (more > less).any() and more.min() >= 0 and more.max() <= 1


def test_frozen_weights_and_one_image_of_a_batch(stored: dict[str, Tensor]) -> None:
    network, x, target = small().requires_grad_(False), stored["x"], stored["target"]
    found = ZoomCAM().explain(network, x[1:2], target[1:2])
    torch.testing.assert_close(found[:, 0], stored["zoomcam"][1:2], rtol=1e-9, atol=1e-12)


@given(st.integers(0, 10**6), st.sampled_from([0.0, 1e-300, 1.0, 1e300]))
@settings(max_examples=30, deadline=None)
def test_normalised_maps_fill_the_range(seed: int, scale: float) -> None:
    maps = torch.rand(2, 1, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * scale
    found = _zoomed(maps, (4, 5))
    assert found.isfinite().all() and found.min() == 0 and found.max() == (1 if scale else 0)


@pytest.mark.parametrize("name", ["resnet18", "vgg16", "cnn3", "timm_resnet", "wrn16_4"])
def test_backbones(name: str) -> None:
    build, shape, options = CASES[name]
    torch.manual_seed(0)
    network = Network(build(4, shape, **options), shape=shape, num_classes=4)
    found = ZoomCAM().explain(network, torch.randn(2, *shape), torch.tensor([1, 3]))
    assert found.shape == (2, 1, *shape[1:]) and found.isfinite().all() and found.min() >= 0 and found.max() <= 1 and found.std() > 0


def test_what_cannot_be_explained(stored: dict[str, Tensor]) -> None:
    with pytest.raises(ValueError, match=r"ZoomCAM: at=features.77: matches no place with feature maps; nearest: features.7"):
        ZoomCAM(at=["features.7", "features.77"]).places(small(), (3, 32, 32))
    with pytest.raises(ValueError, match=r"ZoomCAM: no nn.ReLU of the backbone runs once"):
        ZoomCAM().places(small(Functional()), (3, 32, 32))
    with pytest.raises(ValueError, match=r"LayerCAM: at=features.77"):
        LayerCAM(at="features.77").place(small(), (3, 32, 32))
