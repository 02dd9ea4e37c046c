"""Projections against the authors' library, a search by bisection, and what every projection obeys."""

import copy
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from attnlab.callbacks.projection import BALLS, Projection
from attnlab.pruning.projections import bilevel_l1inf, bilevel_l11, l1, l1_groups, l1_radii_l2_scaling, l1_vectors, l21, nuclear
from tests.golden_numbers import golden

GROUPED = {"bilevel_l11": bilevel_l11, "l21": l21}
COLUMNS = {"bilevel_l1inf_cols": bilevel_l1inf, "v8_l12_cols": l21, "v8_l21_cols": l1_radii_l2_scaling, "v8_l11_cols": l1_groups}
EXACT = (l1, l21, nuclear)


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("number", range(3))
def test_equal_the_released_code(number: int) -> None:
    gold = golden("components", "proj_")
    w, radius = gold["w"], gold["etas"][number].item()
    same(l1(w, radius), gold[f"l1_{number}"])
    same(nuclear(w, radius), gold[f"nuclear_{number}"])
    for name, project in GROUPED.items():
        same(project(w, radius), gold[f"{name}_rows_{number}"])
        same(project(w, radius, per="input_channel"), gold[f"{name}_cols_{number}"])
    for name, project in COLUMNS.items():
        same(project(w, radius, per="input_channel"), gold[f"{name}_{number}"])


def test_kernels_by_filters_and_by_input_channels() -> None:
    gold = golden("components", "proj_conv_")
    same(bilevel_l11(gold["w"], gold["eta"]), gold["bilevel_l11_rows"])
    same(bilevel_l11(gold["w"], gold["eta"], per="input_channel"), gold["bilevel_l11_cols"])


def test_of_a_vector_is_the_search_by_bisection() -> None:
    for seed in range(20):
        x = torch.randn(17, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        radius, low, high = 0.2 * seed, 0.0, x.abs().max().item()
        for _ in range(200):
            t = (low + high) / 2
            low, high = (t, high) if (x.abs() - t).clamp_min(0).sum() > radius else (low, t)
        torch.testing.assert_close(l1_vectors(x, radius), x.sign() * (x.abs() - high).clamp_min(0), rtol=0, atol=1e-12)


NORMS = {
    l1: lambda x: x.abs().sum(),
    nuclear: lambda x: torch.linalg.matrix_norm(x.flatten(1), "nuc"),
    bilevel_l11: lambda x: x.abs().sum(),
    l21: lambda x: x.flatten(1).norm(dim=1).sum(),
    bilevel_l1inf: lambda x: x.abs().flatten(1).amax(1).sum(),
}


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.floats(0, 30), st.sampled_from([(4, 3), (3, 2, 3, 3), (1, 5)]))
def test_laws(seed: int, radius: float, shape: tuple[int, ...]) -> None:
    """Feasible, idempotent, the identity inside the ball, no sign changes; those that are Euclidean projections are the nearest point."""
    generator = torch.Generator().manual_seed(seed)
    x, other = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    for project, norm in NORMS.items():
        found = project(x, radius)
        assert norm(found) <= radius * (1 + 1e-12) + 1e-12
        torch.testing.assert_close(project(found, radius), found, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(project(x, norm(x) * 1.01), x, rtol=1e-12, atol=1e-12)
        if project is not nuclear:
            assert (found * x >= 0).all()
        if project in EXACT:  # no feasible point lies beyond the plane through the projection
            assert ((x - found) * (project(other, radius) - found)).sum() <= 1e-9


def test_nothing_and_no_radius() -> None:
    for project in NORMS:
        assert not project(torch.zeros(3, 4), 1.0).any() and not project(torch.randn(3, 4), 0.0).any()


class Steps(SimpleNamespace):
    """As much of a learner as the callback sees: a network, and steps that move its weights."""

    def __init__(self, callback: Projection, *, total_steps: int = 10) -> None:
        torch.manual_seed(0)
        backbone = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(6, 4)).double()
        super().__init__(network=SimpleNamespace(backbone=backbone), total_steps=total_steps)
        self.callback = callback

    def take(self, *steps: int) -> None:
        for step in steps:
            generator = torch.Generator().manual_seed(step)
            with torch.no_grad():
                for weight in self.network.backbone.parameters():
                    weight += 0.05 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            self.callback.on_step(self, step)

    def start(self) -> "Steps":
        self.callback.on_fit_start(self)
        return self


@pytest.mark.parametrize("ball", list(BALLS))
def test_the_callback_is_the_projection_after_the_step(ball: str) -> None:
    free, kept = Steps(SimpleNamespace(on_step=lambda *_: None)), Steps(Projection(ball=ball, radius=0.4, at=["3"])).start()
    before = free.network.backbone[3].weight.detach().clone()
    free.take(1)
    kept.take(1)
    expected = BALLS[ball].project(free.network.backbone[3].weight.detach(), 0.4 * BALLS[ball].norm(before, "filter"), "filter")
    same(kept.network.backbone[3].weight.detach(), expected)
    same(kept.network.backbone[0].weight.detach(), free.network.backbone[0].weight.detach())


def test_zeros_stay_after_the_freeze_and_the_state_goes_on() -> None:
    whole = Steps(Projection(radius=0.3, freeze=0.5)).start()
    whole.take(1, 2, 3)
    middle = (copy.deepcopy(whole.network), copy.deepcopy(whole.callback.state_dict()))
    whole.take(4, 5)
    assert not whole.callback.kept  # half of the ten steps are done, and the sixth is the first one after
    whole.take(6)
    assert whole.callback.kept and Projection().every == 1
    zeros = whole.network.backbone[0].weight == 0
    whole.take(7, 8)
    assert zeros.any() and torch.equal(whole.network.backbone[0].weight == 0, zeros)
    row: dict[str, float] = {}
    whole.callback.on_epoch_end(whole, row)
    assert 0 < row["projection/zeros"] < 1
    again = Steps(Projection(radius=0.3, freeze=0.5))
    again.network = middle[0]
    again.start().callback.load_state_dict(middle[1])
    again.take(4, 5, 6)
    late = copy.deepcopy(again.callback.state_dict())
    again.start().callback.load_state_dict(late)  # and once more after the freeze
    again.take(7, 8)
    for one, two in zip(whole.network.backbone.parameters(), again.network.backbone.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_layer_that_is_not_there() -> None:
    with pytest.raises(ValueError, match=r"projection\.at: no convolution or linear layer matches '9'"):
        Steps(Projection(at=["9"])).start()
    with pytest.raises(ValueError, match="radius must be 0 or more"):
        Projection(radius=-1)
