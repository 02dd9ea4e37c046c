"""LIME, KernelSHAP and KLFDS against their regressions, exact Shapley values, and networks that add up superpixels."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from attnlab.explainers import surrogate, through_captum
from attnlab.explainers.kernel_shap import KernelShap
from attnlab.explainers.klfds import Klfds, cliques, connected_set, gram, kernel_ridge
from attnlab.explainers.lime import Lime, similarity
from attnlab.explainers.superpixels import adjacency, grid_segments
from tests.golden_numbers import golden
from tests.reference.explained import small


class Interacting(nn.Module):
    """The probability of class 1 depends on sums and a product of the quarters of the image; class 0 has the rest."""

    def forward(self, x: Tensor) -> Tensor:
        quarter_B4 = nn.functional.adaptive_avg_pool2d(x[:, :1], 2).flatten(1)
        score = quarter_B4 @ x.new_tensor([2.0, -1.0, 0.0, 0.5]) + quarter_B4[:, 0] * quarter_B4[:, 3]
        return torch.stack([torch.zeros_like(score), score], 1)


def with_hidden(z: tuple[int, ...], x_1CHW: Tensor) -> float:
    shown = torch.tensor(z, dtype=x_1CHW.dtype)[grid_segments(*x_1CHW.shape[2:], 4)]
    return float(Interacting()(x_1CHW * shown).softmax(1)[0, 1])


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.ones(2, 1, 6, 6, dtype=torch.float64) * torch.tensor([1.0, 0.5], dtype=torch.float64)[:, None, None, None]


def test_kernel_shap_gives_shapley_values(x: Tensor) -> None:
    pytest.importorskip("captum")
    found = KernelShap(num_samples=2000, num_segments=4).explain(Interacting(), x, torch.tensor([1, 0]))
    for b, sign in ((0, 1), (1, -1)):  # what speaks for class 1 speaks against class 0
        expected = torch.zeros(4, dtype=torch.float64)
        for order in itertools.permutations(range(4)):
            for position, j in enumerate(order):
                before = tuple(int(i in order[:position]) for i in range(4))
                after = tuple(int(i in order[: position + 1]) for i in range(4))
                expected[j] += (with_hidden(after, x[b : b + 1]) - with_hidden(before, x[b : b + 1])) / math.factorial(4)
        values = found[b, 0][[0, 0, 5, 5], [0, 5, 0, 5]]
        torch.testing.assert_close(values, sign * expected, rtol=0, atol=0.015)
        change = with_hidden((1,) * 4, x[b : b + 1]) - with_hidden((0,) * 4, x[b : b + 1])
        assert abs(float(values.sum()) - sign * change) < 1e-4


def test_superpixels_are_of_the_image_before_normalisation(x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}
    monkeypatch.setattr(surrogate, "segments_of", lambda x, num, **given: seen.update(given) or [grid_segments(6, 6, num)] * len(x))
    Klfds(num_samples=8, num_segments=4, mean=[0.5], std=[0.2]).explain(Interacting(), x[:1], torch.tensor([1]))
    assert (seen["mean"], seen["std"]) == ([0.5], [0.2])


@pytest.mark.parametrize("alpha", [1.0, 0.1])
def test_lime_is_a_weighted_ridge_regression(x: Tensor, alpha: float) -> None:
    pytest.importorskip("captum")
    found = Lime(num_samples=40, num_segments=4, seed=3, alpha=alpha).explain(Interacting(), x[:1], torch.tensor([1]))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        z = torch.cat([torch.bernoulli(torch.full((1, 4), 0.5)) for _ in range(40)]).double()
    y = torch.tensor([with_hidden(tuple(row.int().tolist()), x[:1]) for row in z], dtype=torch.float64)
    cosine = torch.nan_to_num(z.sum(1) / (z.norm(dim=1) * 2))
    weight = torch.exp(-((1 - cosine) ** 2) / (2 * 0.25**2))
    torch.testing.assert_close(similarity(z, 0.25), weight)
    z1 = torch.cat([z, torch.ones(40, 1, dtype=torch.float64)], 1)
    ridge = alpha * torch.diag(torch.tensor([1.0, 1, 1, 1, 0], dtype=torch.float64))
    expected = torch.linalg.solve(z1.T * weight @ z1 + ridge, z1.T * weight @ y)[:4]
    torch.testing.assert_close(found[0, 0][[0, 0, 5, 5], [0, 5, 0, 5]], expected, rtol=1e-4, atol=1e-5)


def test_a_captum_draw_leaves_the_generator_alone(x: Tensor) -> None:
    pytest.importorskip("captum")
    state = torch.get_rng_state()
    Lime(num_samples=5, num_segments=4).explain(Interacting(), x, torch.tensor([1, 0]))
    assert torch.equal(torch.get_rng_state(), state)


def test_without_captum_a_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(through_captum.importlib.util, "find_spec", lambda name: None)
    for explainer, name in ((Lime, "lime"), (KernelShap, "kernel_shap")):
        with pytest.raises(ValueError, match=rf'explainer={name} needs captum, .*: pip install -e "\.\[explain\]"'):
            explainer()


def test_kernel_ridge_is_the_stored_one() -> None:
    stored = golden("explainers", "kls_")
    z, y, weight = stored["Z"].double(), stored["y"], stored["weight"]
    a, b = kernel_ridge(gram(z, z, "rbf", 0.2), y, weight, 0.1, intercept=False)
    torch.testing.assert_close(a, stored["rbf_alpha"], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(gram(z, z, "rbf", 0.2) @ a, stored["rbf_fit"], rtol=1e-9, atol=1e-11)
    a, b = kernel_ridge(gram(z, z, "linear", 0), y, weight, 1.0, intercept=True)
    torch.testing.assert_close(torch.cat([z.T @ a, b[None]]), stored["ridge_coef"], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("sampling", ["cliques", "connected"])
def test_klfds_with_a_linear_kernel_ranks_by_drops(x: Tensor, sampling: str) -> None:
    """The weights are near the drops of the probability when one superpixel is hidden."""
    explainer = Klfds(sampling=sampling, kernel="linear", num_samples=30, num_segments=4, superpixels="grid", penalty=1e-8)
    values = explainer.explain(Interacting(), x, torch.tensor([1, 1]))[0, 0][[0, 0, 5, 5], [0, 5, 0, 5]]
    drops = torch.tensor([with_hidden((1,) * 4, x[:1]) - with_hidden(tuple(int(i != j) for i in range(4)), x[:1]) for j in range(4)])
    assert values.argsort().tolist() == drops.argsort().tolist() and values[2].abs() < 0.05


@pytest.mark.parametrize("kernel", ["rbf", "polynomial"])
def test_klfds_finds_the_superpixel_that_counts(kernel: str) -> None:
    class Corner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = x[:, 0, :4, :4].mean((1, 2))
            return torch.stack([torch.zeros_like(score), 3 * score], 1)

    x = torch.ones(1, 1, 16, 16)
    found = Klfds(kernel=kernel, num_samples=200, num_segments=16, superpixels="grid").explain(Corner(), x, torch.tensor([1]))[0, 0]
    assert found.argmax() == 0 and found[0, 0] > 3 * found[4:, 4:].abs().max()


def test_cliques_and_connected_sets() -> None:
    touches = adjacency(grid_segments(6, 6, 9))
    found = cliques(touches, 4)
    assert len(found) == 9 + 12 and found[9] == (0, 1)  # a grid has no triangles
    triangle = ~torch.eye(4, dtype=torch.bool)
    assert len(cliques(triangle, 4)) == 15 and len(cliques(triangle, 2)) == 10
    generator = torch.Generator().manual_seed(0)
    for _ in range(30):
        chosen = connected_set(touches, generator)
        reached = {chosen[0]}
        for _ in chosen:
            reached |= {j for i in reached for j in chosen if touches[i, j]}
        assert reached == set(chosen) and len(chosen) == len(set(chosen))


@pytest.mark.parametrize("explainer", [Lime, KernelShap, Klfds])
def test_the_seed_decides(explainer: type) -> None:
    if explainer is not Klfds:
        pytest.importorskip("captum")
    stored, options = golden("explainers"), {"num_samples": 20, "num_segments": 16}
    maps = [explainer(seed=seed, **options).explain(small(), stored["x"][:2], stored["target"][:2]) for seed in (0, 0, 1)]
    assert torch.equal(maps[0], maps[1]) and not torch.equal(maps[0], maps[2])


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="kernel must be one of rbf, polynomial, linear, got 'cubic'"):
        Klfds(kernel="cubic")
    with pytest.raises(ValueError, match="superpixels must be one of grid, slic, got 'felzenszwalb'"):
        Klfds(superpixels="felzenszwalb")
    with pytest.raises(ValueError, match="num_samples must be larger than num_segments"):
        KernelShap(num_samples=49)
