"""Deletion, insertion, AUPC and AUTVC against the authors' numbers, slow loops and their laws."""

import pytest
import scipy.integrate
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attnlab.evaluation.attribution_scores import scores
from attnlab.evaluation.faithfulness import aupc, autvc, blurred, deletion_insertion, pyramid, windows
from tests.golden_numbers import golden
from tests.reference.explained import small

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture(scope="module")
def stored() -> dict[str, Tensor]:
    return golden("explainers")


def maps(stored: dict[str, Tensor], name: str) -> Tensor:
    return (stored["smoothtaylor"] if name == "st" else stored[name]).sum(1, keepdim=True)


@pytest.mark.parametrize("values", [2**20, 20000])
@pytest.mark.parametrize("step", [32, 50])
@pytest.mark.parametrize("name", ["ig", "gnl"])
def test_curves_are_rise_s(stored: dict[str, Tensor], name: str, step: int, values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("attnlab.explainers.attribution.VALUES", values)
    found = deletion_insertion(small(), stored["x"], stored[f"heat_{name}"][:, None], step=step)
    for short, area, curve in (("del", found.deletion, found.deletion_curve), ("ins", found.insertion, found.insertion_curve)):
        torch.testing.assert_close(curve, stored[f"{short}_{name}_step{step}_curve"], rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(area, stored[f"{short}_{name}_step{step}_auc"], rtol=1e-10, atol=1e-12)


def test_the_blur_is_rise_s(stored: dict[str, Tensor]) -> None:
    torch.testing.assert_close(blurred(stored["x"]), stored["ins_blur"], rtol=1e-10, atol=1e-12)
    impulse = torch.zeros(1, 1, 13, 13, dtype=torch.float64)
    impulse[..., 6, 6] = 1
    torch.testing.assert_close(blurred(impulse)[0, 0, 1:-1, 1:-1], stored["ins_kernel"], rtol=0, atol=1e-9)


def test_the_default_step_is_a_row_and_the_target_is_the_predicted_class(stored: dict[str, Tensor]) -> None:
    network, x, heat = small(), stored["x"], stored["heat_ig"]
    found = deletion_insertion(network, x, heat)
    torch.testing.assert_close(found.deletion, stored["del_ig_step32_auc"], rtol=1e-10, atol=1e-12)
    other = deletion_insertion(network, x, heat, target_B=stored["target"])
    assert torch.equal(other.deletion[:3], found.deletion[:3]) and other.deletion[3] != found.deletion[3]


def test_insertion_into_the_mean_is_deletion_backwards(stored: dict[str, Tensor]) -> None:
    """Inserting in one order and deleting in the reverse order give the same images."""
    network, x, heat = small(), stored["x"], stored["heat_ig"]
    forth = deletion_insertion(network, x, heat, insert_into="mean", step=32)
    back = deletion_insertion(network, x, -heat, insert_into="mean", step=32)
    torch.testing.assert_close(forth.insertion_curve, back.deletion_curve.flip(1), rtol=1e-12, atol=1e-12)


class OnePixel(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([torch.zeros_like(x[:, 0, 2, 3]), x[:, 0, 2, 3]], 1)


def test_a_network_of_one_pixel_and_one_of_none() -> None:
    x = torch.full((2, 1, 4, 6), 3.0)
    heat = torch.zeros(2, 1, 4, 6)
    heat[0, 0, 2, 3], heat[1, 0, 2, 3] = 1, -1  # ranked first, and last
    found = deletion_insertion(OnePixel(), x, heat, step=1, insert_into="mean")
    high, low = torch.sigmoid(torch.tensor(3.0)), torch.tensor(0.5)
    torch.testing.assert_close(found.deletion_curve[0], torch.stack([high, *[low] * 24]))
    torch.testing.assert_close(found.deletion_curve[1], torch.stack([*[high] * 24, low]))
    flat = deletion_insertion(lambda_module(lambda x: x.new_zeros(len(x), 5)), x, heat)
    for area in (flat.deletion, flat.insertion):
        torch.testing.assert_close(area, torch.full((2,), 0.2))


def lambda_module(function) -> nn.Module:
    class Function(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    return Function()


@pytest.mark.parametrize("name", ["st", "ig"])
def test_aupc_is_the_authors(stored: dict[str, Tensor], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel, map_B1HW = int(stored["aupc_kernel"]), maps(stored, name)
    corners = windows(map_B1HW[:, 0].abs(), kernel=kernel, num_regions=8)
    assert torch.equal(corners.transpose(0, 1), stored[f"aupc_{name}_windows"])
    for values in (2**20, 20000):
        monkeypatch.setattr("attnlab.explainers.attribution.VALUES", values)
        found = aupc(
            small(), stored["x"], map_B1HW, stored["target"], mean=MEAN, std=STD, kernel=kernel, num_regions=8,
            fills_BRFCkk=stored[f"aupc_{name}_fills"],
        )  # fmt: skip
        torch.testing.assert_close(found, stored[f"aupc_{name}"], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["st", "ig"])
def test_the_logits_and_the_curve_of_aupc_are_the_authors(stored: dict[str, Tensor], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every region's logits hang on the filling that was kept in those before."""
    asked, curves = [], integrated(monkeypatch)
    monkeypatch.setattr("attnlab.evaluation.faithfulness.scores", lambda *given: asked.append(scores(*given)) or asked[-1])
    aupc(
        small(), stored["x"], maps(stored, name), stored["target"], mean=MEAN, std=STD, kernel=int(stored["aupc_kernel"]), num_regions=8,
        fills_BRFCkk=stored[f"aupc_{name}_fills"],
    )  # fmt: skip
    logits_BRF = torch.stack([logits.view(4, 7) for logits in asked[1:]], 1)
    torch.testing.assert_close(logits_BRF, stored[f"aupc_{name}_scores"], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(curves[0], stored[f"aupc_{name}_curve"], rtol=1e-9, atol=1e-11)


def integrated(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The curves that are integrated from now on."""
    curves, simpson = [], scipy.integrate.simpson
    monkeypatch.setattr("scipy.integrate.simpson", lambda y, **given: curves.append(torch.from_numpy(y)) or simpson(y, **given))
    return curves


def test_windows_are_a_slow_greedy_choice() -> None:
    heat = torch.rand(2, 9, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    heat[1] = 1.0  # all equal: column by column
    found = windows(heat, kernel=3, num_regions=3)
    for b in range(2):
        scored = [(-float(heat[b, i : i + 3, j : j + 3].mean()), j, i) for j in range(9) for i in range(6)]
        scored = scored if b == 0 else [(0, j, i) for _, j, i in scored]
        taken: list[tuple[int, int]] = []
        for _, j, i in sorted(scored):
            if all(abs(i - k) > 2 or abs(j - m) > 2 for k, m in taken):
                taken.append((i, j))
        assert [tuple(corner) for corner in found[:, b].tolist()] == taken[:3]


def test_aupc_draws_by_its_seed(stored: dict[str, Tensor]) -> None:
    options = dict(mean=MEAN, std=STD, kernel=5, num_regions=2, num_fills=3)
    x, heat, target = stored["x"], maps(stored, "ig"), stored["target"]
    found = aupc(small(), x, heat, target, **options)
    torch.testing.assert_close(aupc(small(), x[1:], heat[1:], target[1:], **options), found[1:], rtol=1e-10, atol=1e-12)
    assert not torch.allclose(aupc(small(), x, heat, target, seed=1, **options), found)


@pytest.mark.parametrize("name", ["st", "ig"])
def test_autvc_is_the_authors(stored: dict[str, Tensor], name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    curves = integrated(monkeypatch)
    torch.testing.assert_close(autvc(maps(stored, name), smallest=5), stored[f"autvc_{name}"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(curves[0], stored[f"autvc_{name}_levels"], rtol=1e-10, atol=1e-12)


def test_the_pyramid_is_skimage_s(stored: dict[str, Tensor]) -> None:
    assert len(pyramid(torch.rand(1, 16, 6), downscale=2, smallest=4)) == 1  # it ends at the shorter side
    levels = pyramid(maps(stored, "st")[:, 0], downscale=1.5, smallest=5)
    assert [len(level[0]) for level in levels] == stored["autvc_sizes"].tolist()
    for i in range(1, 6):
        torch.testing.assert_close(levels[i][0], stored[f"autvc_pyramid_{i}"], rtol=1e-10, atol=1e-12)


@given(st.integers(0, 10**6), st.floats(0.01, 100))
@settings(max_examples=20, deadline=None)
def test_autvc_does_not_depend_on_scale_and_sign(seed: int, scale: float) -> None:
    heat = torch.randn(2, 1, 14, 11, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(autvc(-scale * heat, smallest=5), autvc(heat, smallest=5), rtol=1e-8, atol=1e-10)
    assert (autvc(heat, smallest=5) > 0).all() and (autvc(torch.full_like(heat, scale), smallest=5) == 0).all()


def test_what_is_refused(stored: dict[str, Tensor]) -> None:
    x, target = stored["x"], stored["target"]
    for heat, message in ((torch.zeros(4, 1, 8, 8), "maps must be"), (torch.full((4, 1, 32, 32), torch.nan), "maps hold NaN")):
        with pytest.raises(ValueError, match=message):
            deletion_insertion(small(), x, heat)
    heat = torch.zeros(4, 1, 32, 32)
    with pytest.raises(ValueError, match="step must be at least 1, got 0"):
        deletion_insertion(small(), x, heat, step=0)
    with pytest.raises(ValueError, match="insert_into must be blur or mean"):
        deletion_insertion(small(), x, heat, insert_into="grey")
    with pytest.raises(ValueError, match="no room for 30 windows of 15 pixels"):
        aupc(small(), x, heat, target, mean=MEAN, std=STD)
    with pytest.raises(ValueError, match="kernel=32 needs larger images"):
        aupc(small(), x, heat, target, mean=MEAN, std=STD, kernel=32)
    with pytest.raises(ValueError, match="has one level of at least 30 pixels: choose smallest=15"):
        autvc(heat)
    with pytest.raises(ValueError, match="downscale must be larger than 1"):
        autvc(heat, downscale=1.0)
