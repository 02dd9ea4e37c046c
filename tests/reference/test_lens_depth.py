"""Lens depth with the Fermat distance against golden numbers of the authors' code, obvious fp64 loops, scipy, and its laws.

Legend: N sample points, P queries, D features.
"""

import itertools
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import shortest_path

from attnlab.ood import fermat
from attnlab.ood.bank import Bank
from attnlab.ood.consistency import consistency_curve
from attnlab.ood.lens_depth import LensDepth, _count, _ranks, fermat_matrix, fermat_to, lens_depth
from tests.golden_numbers import golden

few = settings(max_examples=25, deadline=None)


@pytest.fixture(params=["compiled", "plain"])
def path(request, monkeypatch):
    """Both ways the loops run: compiled (skipped where no compiler is), and in plain torch."""
    if request.param == "plain":
        monkeypatch.setattr(fermat, "compiled", lambda: None)
    elif fermat.compiled() is None:
        pytest.skip("no C compiler")
    return request.param


def points(n, dim=4, *, seed=0, spread=1.0):
    return spread * torch.randn(n, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bank(features, labels=None):
    labels = torch.zeros(len(features), dtype=torch.int64) if labels is None else labels
    return Bank(features, torch.zeros(len(features), 1), labels)


def slow_depth(inner, query):
    """The definition, pair by pair."""
    inner, out = inner.tolist(), []
    for d in query.tolist():
        pairs = list(itertools.combinations(range(len(d)), 2))
        out.append(sum(max(d[i], d[j]) <= inner[i][j] for i, j in pairs) / len(pairs))
    return torch.tensor(out, dtype=torch.float64)


def depth_of(sample, queries, alpha):
    inner = fermat_matrix(sample, alpha=alpha)
    return lens_depth(inner, fermat_to(inner, sample, queries, alpha=alpha))


# -- against numbers and loops ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [1, 3, 7])
def test_golden_numbers(path, alpha):
    gold = golden("core", "ld_")
    centers, queries = gold["centers"], gold["queries"]
    inner = fermat_matrix(centers, alpha=alpha)
    outer = fermat_to(inner, centers, queries, alpha=alpha)
    torch.testing.assert_close(inner, gold[f"inner_a{alpha}"], rtol=1e-12, atol=0)
    torch.testing.assert_close(outer, gold[f"ext_a{alpha}"], rtol=1e-12, atol=0)
    one_pair = 1.001 / (len(centers) * (len(centers) - 1) / 2)
    assert (lens_depth(inner, outer) - gold[f"depth_a{alpha}"]).abs().max() < one_pair
    assert (lens_depth(inner, inner) - gold[f"depth_in_a{alpha}"]).abs().max() < one_pair
    assert (depth_of(centers, centers, alpha) - gold[f"depth_in_a{alpha}"]).abs().max() < one_pair


@pytest.mark.parametrize("alpha", [1.0, 2.5, 7.0])
@pytest.mark.parametrize(("N", "P"), [(2, 3), (3, 0), (17, 65), (70, 33)])
def test_against_scipy_and_loops(path, alpha, N, P):
    sample, queries = points(N), points(P, seed=1, spread=1.3)
    hops = (sample[:, None] - sample).norm(dim=2) ** alpha
    inner = fermat_matrix(sample, alpha=alpha)
    torch.testing.assert_close(inner, torch.from_numpy(shortest_path(hops.numpy(), directed=False)), rtol=1e-12, atol=0)
    outer = fermat_to(inner, sample, queries, alpha=alpha)
    first = (queries[:, None] - sample).norm(dim=2) ** alpha
    torch.testing.assert_close(outer, (first[:, :, None] + inner).amin(1), rtol=1e-12, atol=0)
    assert torch.equal(lens_depth(inner, outer), slow_depth(inner, outer))


@pytest.mark.parametrize("N", [1, 2, 31, 33, 64, 65, 129, 200])
def test_shortest_paths_are_those_of_one_pivot_at_a_time_to_the_bit(path, N):
    """Compiled, 64 pivots are taken at once, and half of the matrix: no rounding may change by that, nor symmetry."""
    sample = points(N)
    one = fermat._hops(sample, sample, 7.0)
    for pivot in range(N):
        one = torch.minimum(one, one[:, pivot, None] + one[pivot])
    inner = fermat_matrix(sample, alpha=7.0)
    assert torch.equal(inner, one) and torch.equal(inner, inner.T)


def test_all_ways_count_alike():
    sample, queries = points(300, 25), points(200, 25, seed=1)
    inner = fermat_matrix(sample, alpha=7)
    outer = fermat_to(inner, sample, queries, alpha=7)
    plain = _count(inner, outer).double()
    assert torch.equal(lens_depth(inner, outer), plain / (300 * 299 / 2))
    assert torch.equal(_count(*_ranks(inner, outer)).double(), plain)
    assert torch.equal(torch.cat([lens_depth(inner, block) for block in outer.split(7)]), lens_depth(inner, outer))
    parts = [fermat_to(inner, sample, block, alpha=7) for block in queries.split(7)]
    assert torch.equal(torch.cat(parts), outer)


def test_distances_closer_than_fp32_are_told_apart(path):
    """Distances that round to the same fp32 number still count as they are."""
    inner = torch.tensor([[0, 1.0, 1], [1, 0, 1], [1, 1, 0]], dtype=torch.float64)
    query = torch.tensor([[1, 1, 1], [1 + 1e-15, 1, 1], [1 + 1e-15, 1 + 1e-15, 1]], dtype=torch.float64)
    assert torch.equal(lens_depth(inner, query), torch.tensor([1, 1 / 3, 0], dtype=torch.float64))


def test_many_threads_change_nothing():
    sample, queries, threads = points(60), points(70, seed=1), torch.get_num_threads()
    expected = depth_of(sample, queries, 7)
    try:
        torch.set_num_threads(3)
        assert torch.equal(depth_of(sample, queries, 7), expected)
    finally:
        torch.set_num_threads(threads)


# -- laws -------------------------------------------------------------------------------------------------------------------------------


def test_alpha_one_is_the_euclidean_distance(path):
    sample, queries = points(40), points(20, seed=1)
    inner = fermat_matrix(sample, alpha=1)
    euclid = torch.cdist(sample, sample, compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(inner, euclid, rtol=1e-12, atol=0)
    assert torch.equal(depth_of(sample, queries, 1), slow_depth(euclid, torch.cdist(queries, sample)))


def test_a_high_power_goes_round_by_the_dense_side(path):
    """From one end of an arc to the other: along the arc, not across."""
    angle = torch.linspace(0, torch.pi, 50, dtype=torch.float64)
    arc = torch.stack([angle.cos(), angle.sin()], 1)
    step = (arc[1] - arc[0]).norm()
    torch.testing.assert_close(fermat_matrix(arc, alpha=3)[0, -1], 49 * step**3, rtol=1e-9, atol=0)


def test_three_points_on_a_line(path):
    """The middle one is in the lens of all three pairs, each end in those of its own two."""
    line = torch.tensor([[0.0, 0], [1, 0], [2, 0]], dtype=torch.float64)
    assert torch.equal(depth_of(line, line, 1), torch.tensor([2 / 3, 1, 2 / 3], dtype=torch.float64))


def test_far_points_have_depth_zero(path):
    far = torch.tensor([[50.0, 0, 0, 0], [1e30, 0, 0, 0], [1e200, 0, 0, 0]], dtype=torch.float64)
    assert torch.equal(depth_of(points(30), torch.cat([far, far[:0]]), 7), torch.zeros(3, dtype=torch.float64))


@few
@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([1.0, 3.0, 7.0, 4.5]))
def test_order_of_the_points_does_not_matter(seed, alpha):
    sample, queries = points(25, seed=seed), points(9, seed=seed + 1)
    order = torch.randperm(25, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(depth_of(sample, queries, alpha), depth_of(sample[order], queries, alpha))


@few
@given(seed=st.integers(0, 10**6), exponent=st.integers(-6, 6), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_scale_does_not_matter(seed, exponent, dtype):
    """Per cent of the pairs, as rounding to fp32 features moves the points themselves."""
    features = torch.cat([points(40, seed=seed), points(40, seed=seed + 1) + 3]).to(dtype)
    labels = torch.arange(2).repeat_interleave(40)
    head, scaled = LensDepth(reduction="none"), LensDepth(reduction="none")
    head.fit(bank(features, labels))
    scaled.fit(bank(features * 10.0**exponent, labels))
    queries = points(20, seed=seed + 2, spread=2.0).to(dtype)
    torch.testing.assert_close(scaled.score(bank(queries * 10.0**exponent)), head.score(bank(queries)), rtol=0, atol=0.01)


@pytest.mark.parametrize("scale", [2.0**-140, 2.0**-20, 2.0**20, 2.0**120])
def test_a_power_of_two_changes_no_bit_at_either_end_of_fp32(path, scale):
    features, queries = points(60).float(), points(20, seed=1).float() * 2**-3
    features, queries = (torch.round(x * 2**6) / 2**6 for x in (features, queries))  # so that the smallest scale loses no digit
    head, scaled = LensDepth(reduction="none"), LensDepth(reduction="none")
    head.fit(bank(features))
    scaled.fit(bank(features * scale))
    assert torch.equal(scaled.score(bank(queries * scale)), head.score(bank(queries)))


@few
@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([1.0, 3.0, 7.0]))
def test_rotation_and_shift_do_not_matter(seed, alpha):
    sample, queries = points(25, seed=seed), points(9, seed=seed + 1)
    rotation, shift = torch.linalg.qr(points(4, seed=seed + 2))[0], points(1, seed=seed + 3)
    moved = depth_of(sample @ rotation + shift, queries @ rotation + shift, alpha)
    assert (moved - depth_of(sample, queries, alpha)).abs().max() < 1.001 / (25 * 24 / 2)  # a tie may break


# -- the head ---------------------------------------------------------------------------------------------------------------------------


def two_classes(apart=6.0):
    features = torch.cat([points(60), points(50, seed=1) + apart])
    return features, torch.cat([torch.full((60,), 3), torch.full((50,), 8)])


@pytest.mark.parametrize("apart", [6.0, 0.5])  # only where classes overlap has a point depth in both
def test_score_is_minus_the_deepest_class(path, apart):
    features, labels = two_classes(apart)
    head = LensDepth(reduction="none", block=7)
    head.fit(bank(torch.cat([features, points(5, seed=9)]), torch.cat([labels, torch.full((5,), -1)])))
    queries = points(40, seed=2, spread=5.0 if apart > 1 else 1.0)
    depths = [depth_of(features[labels == label], queries, 7) for label in (3, 8)]
    assert torch.equal(head.score(bank(queries)), -torch.maximum(*depths))
    assert (torch.minimum(*depths) > 0).any() == (apart < 1)


def test_normalised_features_forget_their_length():
    features, labels = two_classes()
    head = LensDepth(reduction="none", normalize=True)
    head.fit(bank(features, labels))
    queries = points(20, seed=2) + 3
    torch.testing.assert_close(head.score(bank(queries * 4)), head.score(bank(queries)), rtol=0, atol=0)


@pytest.mark.parametrize("reduction", ["kmeans", "random", "nearest"])
def test_reductions(reduction):
    features, labels = two_classes()
    heads = [LensDepth(reduction=reduction, num_centers=20, seed=5) for _ in range(2)]
    for head in heads:
        head.fit(bank(features, labels))
    (first, _), (second, _) = heads[0].samples
    assert len(first) == len(second) == 20 or (reduction == "nearest" and 15 < len(first) <= 20)
    own = features / heads[0].scale
    members = (torch.cdist(first, own[labels == 3], compute_mode="donot_use_mm_for_euclid_dist").amin(1) == 0).all()
    assert members == (reduction != "kmeans")
    queries = bank(points(20, seed=2, spread=3.0))
    assert torch.equal(heads[0].score(queries), heads[1].score(queries))


def test_kmeans_centres_are_scikit_learns():
    from sklearn.cluster import KMeans

    features = points(80)
    head = LensDepth(num_centers=10, num_inits=3, seed=4)
    head.fit(bank(features))
    expected = KMeans(10, n_init=3, random_state=4).fit(features.numpy()).cluster_centers_
    torch.testing.assert_close(head.samples[0][0] * head.scale, torch.from_numpy(expected))


def test_without_a_reduction_all_points_stay():
    features, labels = two_classes()
    head = LensDepth(reduction="none", num_centers=20)
    head.fit(bank(features, labels))
    assert [len(sample) for sample, _ in head.samples] == [60, 50]


def test_a_small_class_gives_all_its_points_and_copies_do_not_break_kmeans():
    features, labels = two_classes()
    head = LensDepth(num_centers=55)
    head.fit(bank(features, labels))
    assert [len(sample) for sample, _ in head.samples] == [55, 50]
    head.fit(bank(points(3).repeat(40, 1)))
    assert [len(sample) for sample, _ in head.samples] == [3]
    assert torch.equal(head.score(bank(points(3) + 100)), torch.zeros(3, dtype=torch.float64))


def test_points_all_alike(path):
    head = LensDepth(reduction="none")
    head.fit(bank(torch.ones(5, 4)))
    assert head.score(bank(torch.tensor([[1.0, 1, 1, 1], [1, 1, 1, 1.5]]))).tolist() == [-1, 0]


def test_without_a_working_compiler(monkeypatch, tmp_path, caplog):
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    for found in (None, str(broken)):
        caplog.clear()
        monkeypatch.setattr(fermat.shutil, "which", lambda name, found=found: found)
        assert fermat.compiled.__wrapped__() is None
        assert "no working C compiler" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.5}, "alpha must be at least 1"),
        ({"alpha": float("nan")}, "alpha must be at least 1"),
        ({"num_centers": 1}, "num_centers must be at least 2"),
        ({"reduction": "mean"}, "reduction must be kmeans, random, nearest or none, got 'mean'"),
        ({"num_inits": 0}, "num_inits and block must be at least 1"),
        ({"block": 0}, "num_inits and block must be at least 1"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        LensDepth(**options)


def test_banks_that_cannot_be_used():
    head, features = LensDepth(), points(10)
    with pytest.raises(ValueError, match="fitted before it scores"):
        head.score(bank(features))
    with pytest.raises(ValueError, match="class 7 has 1 point"):
        head.fit(bank(features, torch.tensor([2] * 9 + [7])))
    with pytest.raises(ValueError, match="no labelled sample"):
        head.fit(bank(features, torch.full((10,), -1)))
    with pytest.raises(ValueError, match="no `features` place"):
        head.fit(bank(features[:, :0]))
    with pytest.raises(ValueError, match="2 samples with NaN or infinity"):
        head.fit(bank(features.index_fill(0, torch.tensor([1, 4]), float("nan"))))
    head.fit(bank(features))
    with pytest.raises(ValueError, match="1 samples with NaN or infinity"):
        head.score(bank(features.index_fill(0, torch.tensor([1]), float("inf"))))
    with pytest.raises(ValueError, match=r"queries \(P, D\)"):
        head.score(bank(features[:, :2]))


def test_distances_that_cannot_be_used():
    sample = points(5)
    inner = fermat_matrix(sample, alpha=3)
    with pytest.raises(ValueError, match="needs at least 2 points, got 1"):
        lens_depth(inner[:1, :1], inner[:, :1])
    with pytest.raises(ValueError, match=r"query \(P, N\)"):
        lens_depth(inner, inner[:, :4])
    with pytest.raises(ValueError, match="must not be NaN"):
        lens_depth(inner, inner * float("nan"))
    with pytest.raises(ValueError, match="alpha must be at least 1"):
        fermat_matrix(sample, alpha=0)
    with pytest.raises(ValueError, match="divide the points by a scale"):
        fermat_matrix(sample * 1e60, alpha=7)
    with pytest.raises(ValueError, match="divide the points by a scale"):
        fermat_matrix(sample * 1e-60, alpha=7)
    with pytest.raises(ValueError, match="points must be finite, got 1 values"):
        fermat_to(inner, sample, torch.tensor([[0, 0, 0, float("nan")]]), alpha=3)


def test_features_are_scaled_by_their_spread_wherever_they_lie():
    features, y = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)).double(), torch.arange(12) % 2
    scales = [LensDepth(normalize=False).fit(features + shift, y).scale for shift in (0.0, 1000.0)]
    assert scales[0] == scales[1] and scales[0] <= (features - features.mean(0)).abs().max() < 2 * scales[0]


# -- consistency ------------------------------------------------------------------------------------------------------------------------


def test_consistency_curve_by_hand():
    scores, correct = torch.tensor([0.1, 0.9, 0.5, 0.7]), torch.tensor([True, False, True, False])
    assert consistency_curve(scores, correct, fractions=(0, 0.25, 0.5, 0.75)).tolist() == pytest.approx([1 / 2, 2 / 3, 1, 1])
    assert consistency_curve(scores, correct).shape == (10,)
    mixed = torch.tensor([True, False, False, True])
    assert consistency_curve(scores, mixed, fractions=(0.5, 0.75, 0.9)).tolist() == [0.5, 1, 1]  # one is kept at least


def test_consistency_takes_the_mean_over_the_order_within_a_tie():
    scores, correct = torch.tensor([0.0, 0, 0, -1]), torch.tensor([True, False, False, True])
    expected = np.mean([np.mean([True, *order[:2]]) for order in itertools.permutations([True, False, False])])
    assert consistency_curve(scores, correct, fractions=(0.25,)).item() == pytest.approx(expected)
    assert consistency_curve(scores.flip(0), correct.flip(0), fractions=(0.25,)).item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("scores", "correct", "fractions", "message"),
    [
        ([0.1, 0.2], [True], (0,), "must be"),
        ([], [], (0,), "N > 0"),
        ([0.1, float("nan")], [True, True], (0,), "1 of 2 scores are NaN"),
        ([0.1, 0.2], [True, True], (1.0,), r"fractions must be in \[0, 1\)"),
    ],
)
def test_consistency_errors(scores, correct, fractions, message):
    with pytest.raises(ValueError, match=message):
        consistency_curve(torch.tensor(scores), torch.tensor(correct), fractions=fractions)


# -- speed ------------------------------------------------------------------------------------------------------------------------------


def numpy_statement(sample, inner, queries, alpha):
    """Both formulas as one would write them in numpy, a query at a time, which keeps its intermediates in the cache."""
    depth = np.empty(len(queries))
    for p, x in enumerate(queries):
        hop = np.sqrt(((x - sample) ** 2).sum(1)) ** alpha
        to = (hop[:, None] + inner).min(0)
        inside = np.maximum(to[:, None], to) <= inner
        depth[p] = (inside.sum() - np.trace(inside)) / 2 / (len(sample) * (len(sample) - 1) / 2)
    return depth


def test_far_faster_than_numpy():
    """Loosely: 45 to 80 times a thread where measured, fp64 both, so 100 and more on two free cores."""
    if fermat.compiled() is None:
        pytest.skip("no C compiler")
    sample, queries = points(500, 25), points(512, 25, seed=1)
    inner = fermat_matrix(sample, alpha=7)
    ours, theirs = [], []
    for _ in range(3):
        start = time.process_time()
        outer = fermat_to(inner, sample, queries, alpha=7)
        depth = lens_depth(inner, outer)
        ours.append((time.process_time() - start) / len(queries))
        start = time.process_time()
        expected = numpy_statement(sample.numpy(), inner.numpy(), queries[:16].numpy(), 7)
        theirs.append((time.process_time() - start) / 16)
    np.testing.assert_array_equal(depth[:16], expected)
    assert min(theirs) > 15 * min(ours), f"{min(theirs) / min(ours):.0f} times"
