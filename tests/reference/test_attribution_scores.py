"""Completeness, class sensitivity, infidelity, stability, sparseness and localisation by masks against captum, Quantus and TorchRay."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from attnlab.evaluation.attribution_scores import class_sensitivity, completeness_gap, infidelity, max_sensitivity, scores, sparseness
from attnlab.evaluation.localisation import box_mask, energy_inside, pointing_game, pointing_hit, relevance_rank_accuracy
from attnlab.explainers.gnl_ig import GuidedNonLinearity
from attnlab.explainers.gradient import Gradient
from attnlab.explainers.ig import IntegratedGradients
from attnlab.metrics import auroc
from tests.golden_numbers import golden
from tests.reference.explained import small


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return golden("explainers")


@pytest.fixture
def noise(stored: dict[str, Tensor]) -> Tensor:
    return 0.1 * stored["noise"].double()


def test_completeness_is_captum_s(stored: dict[str, Tensor]) -> None:
    network, x, target = small(), stored["x"], stored["target"]
    torch.testing.assert_close(scores(network, x, target), stored["f_x"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(scores(network, torch.zeros_like(x), target), stored["f_0"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(completeness_gap(network, x, stored["ig"], target), stored["ig_gap"], rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(completeness_gap(network, x, stored["gnl_authors"], target), stored["gnl_gap"], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("key", "explainer"), [("ig", IntegratedGradients()), ("gnl", GuidedNonLinearity(pool_rule="authors"))])
def test_class_sensitivity(stored: dict[str, Tensor], key: str, explainer) -> None:
    maps = torch.stack([explainer.attribute(small(), stored["x"], torch.full((4,), c)) for c in range(5)])
    torch.testing.assert_close(class_sensitivity(maps), stored[f"class_sensitivity_{key}"], rtol=0, atol=1e-7)


def test_class_sensitivity_of_equal_opposite_and_empty_maps() -> None:
    one = torch.randn(1, 2, 1, 3, 3)
    torch.testing.assert_close(class_sensitivity(torch.cat([one, 2 * one])), torch.ones(2))
    torch.testing.assert_close(class_sensitivity(torch.cat([one, -one])), -torch.ones(2))
    assert class_sensitivity(torch.cat([one, 0 * one])).tolist() == [0, 0]
    with pytest.raises(ValueError, match="at least two classes, got 1"):
        class_sensitivity(one)


@pytest.mark.parametrize("key", ["ig", "smoothtaylor", "grad"])
def test_infidelity_is_captum_s(stored: dict[str, Tensor], noise: Tensor, key: str) -> None:
    network, x, target = small(), stored["x"], stored["target"]
    found = infidelity(network, x, stored[key], target, noise_RBCHW=noise)
    torch.testing.assert_close(found, stored[f"infidelity_{key}"], rtol=1e-8, atol=1e-12)
    if key == "ig":
        found = infidelity(network, x, stored[key], target, noise_RBCHW=noise, normalise=True)
        torch.testing.assert_close(found, stored["infidelity_ig_norm"], rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("key", "explainer"), [("ig", IntegratedGradients()), ("grad", Gradient())])
def test_max_sensitivity_is_captum_s(stored: dict[str, Tensor], noise: Tensor, key: str, explainer) -> None:
    found = max_sensitivity(explainer.attribute, small(), stored["x"], stored["target"], noise_RBCHW=noise)
    torch.testing.assert_close(found, stored[f"sensmax_{key}"], rtol=0, atol=1e-8)


@pytest.mark.parametrize("key", ["ig", "gnl"])
def test_scores_of_maps_are_quantus_s_and_torchray_s(stored: dict[str, Tensor], key: str) -> None:
    heat, mask = stored[f"heat_{key}"][:, None], stored["mask"]
    torch.testing.assert_close(sparseness(heat + 1e-7), stored[f"quantus_Sparseness_{key}"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        relevance_rank_accuracy(heat, mask).double(), stored[f"quantus_RelevanceRankAccuracy_{key}"], rtol=1e-6, atol=0
    )
    for tolerance, expected in zip(stored["pointing_tolerances"].tolist(), stored[f"pointing_{key}"]):
        assert torch.equal(pointing_hit(heat, mask, tolerance=tolerance) * 2 - 1, expected.float())
    assert pointing_hit(heat, mask, tolerance=0).sum() == 0
    boxes = torch.stack([torch.stack([*ends(one.any(0)), *ends(one.any(1))])[[0, 2, 1, 3]] for one in mask.bool()]).double()
    assert torch.equal(box_mask(boxes, 32, 32), mask.bool())
    share = energy_inside(heat, boxes)
    torch.testing.assert_close(share, stored[f"quantus_RelevanceMassAccuracy_{key}"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(share, stored[f"quantus_AttributionLocalisation_{key}"], rtol=0, atol=1e-9)
    assert torch.equal(pointing_game(heat, boxes).double(), stored[f"quantus_PointingGame_{key}"])
    areas = [auroc(one[~inside], one[inside]) for one, inside in zip(heat[:, 0], mask.bool())]
    assert areas == pytest.approx(stored[f"quantus_AUC_{key}"].tolist(), abs=1e-6)


def ends(any_N: Tensor) -> tuple[Tensor, Tensor]:
    """The first position and the one after the last."""
    (found,) = any_N.nonzero(as_tuple=True)
    return found[0], found[-1] + 1


@given(st.integers(0, 10**6), st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_sparseness_is_the_mean_difference(seed: int, scale: float) -> None:
    """Gini: half the mean absolute difference of all pairs, relative to the mean."""
    heat = torch.rand(2, 1, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    v = heat.flatten(1)
    expected = (v[:, :, None] - v[:, None]).abs().mean((1, 2)) / (2 * v.mean(1))
    torch.testing.assert_close(sparseness(-scale * heat), expected, rtol=1e-9, atol=1e-12)
    assert sparseness(torch.zeros(1, 1, 3, 3)).tolist() == [0] and sparseness(torch.ones(1, 1, 3, 3)).tolist() == [0]


def test_box_masks_hold_the_pixels_whose_centres_are_inside() -> None:
    found = box_mask(torch.tensor([[1.0, 0.4, 3.0, 2.0], [0.6, 0.0, 1.4, 4.0]]), 3, 4)
    assert found[0].tolist() == [[False, True, True, False]] * 2 + [[False] * 4]
    assert not found[1].any()


def test_a_map_of_zeros_is_perfectly_stable() -> None:
    x, target = torch.rand(2, 3, 4, 4), torch.tensor([0, 1])
    found = max_sensitivity(lambda network, x, target: torch.zeros(len(x), 1, 4, 4), None, x, target, noise_RBCHW=torch.rand(3, 2, 3, 4, 4))
    assert found.tolist() == [0, 0]
