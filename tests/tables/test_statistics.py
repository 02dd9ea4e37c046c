"""Statistics of a few seeds against scipy, numbers worked by hand, and the laws they must keep."""

import math

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from attnlab.tables.model import Paper
from attnlab.tables.statistics import mean, noise, paired_test, sample_sd, t_interval, verdict

numbers = st.floats(-1e3, 1e3, allow_nan=False).map(lambda value: round(value, 6))
lists = st.lists(numbers, min_size=2, max_size=12)


def test_by_hand() -> None:
    values = [4.0, 5.0, 9.0]  # mean 6, squares 4 + 1 + 9 = 14, sd = sqrt(7), standard error sqrt(7/3), t(2) = 4.302653
    assert mean(values) == 6.0 and sample_sd(values) == pytest.approx(math.sqrt(7))
    low, high = t_interval(values)
    assert (low, high) == pytest.approx((6 - 4.302653 * math.sqrt(7 / 3), 6 + 4.302653 * math.sqrt(7 / 3)), rel=1e-6)


def test_too_few_values_say_nothing() -> None:
    assert mean([]) is None and sample_sd([1.0]) is None and t_interval([1.0]) is None and t_interval([1.0, 1.0]) is None
    assert paired_test({0: 1.0}, {1: 2.0}) is None
    one = paired_test({0: 3.0}, {0: 1.0})
    assert (one.n, one.difference, one.interval, one.p) == (1, 2.0, None, None)


@given(lists)
def test_interval_is_scipys(values: list[float]) -> None:
    assume(sample_sd(values) > 1e-6)
    expected = stats.t.interval(0.95, len(values) - 1, loc=sum(values) / len(values), scale=stats.sem(values))
    assert t_interval(values) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(lists, st.data())
def test_paired_test_is_scipys(ours: list[float], data: st.DataObject) -> None:
    theirs = data.draw(st.lists(numbers, min_size=len(ours), max_size=len(ours)))
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    assume(sample_sd(differences) > 1e-6)
    found = paired_test(dict(enumerate(ours)), dict(enumerate(theirs)))
    expected = stats.ttest_rel(ours, theirs)
    assert found.p == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    assert found.difference == pytest.approx(mean(differences), abs=1e-9)
    assert found.interval == pytest.approx(tuple(expected.confidence_interval()), rel=1e-6, abs=1e-6)


def test_paired_test_takes_shared_seeds_only_and_undefined_p_is_none() -> None:
    assert paired_test({0: 1.0, 1: 2.0, 7: 99.0}, {0: 0.5, 1: 1.0, 8: -99.0}).n == 2
    assert paired_test({0: 1.0, 1: 2.0}, {0: 1.0, 1: 2.0}).p is None
    equal = paired_test({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0})  # no spread: Student's test says nothing
    assert (equal.difference, equal.interval, equal.p) == (1.0, None, None)


@given(lists, numbers, st.floats(0.01, 100))
def test_shift_scale_and_order(values: list[float], shift: float, scale: float) -> None:
    assume(sample_sd(values) > 1e-6)
    low, high = t_interval(values)
    moved = t_interval([scale * value + shift for value in reversed(values)])
    assert moved == pytest.approx((scale * low + shift, scale * high + shift), rel=1e-6, abs=1e-5)


@given(lists, lists)
def test_paired_test_changes_sign_with_its_sides(ours: list[float], theirs: list[float]) -> None:
    one, other = paired_test(dict(enumerate(ours)), dict(enumerate(theirs))), paired_test(dict(enumerate(theirs)), dict(enumerate(ours)))
    assert one.difference == -other.difference and one.p == other.p
    if one.interval is not None:
        assert one.interval == pytest.approx((-other.interval[1], -other.interval[0]))


def test_noise_is_welchs_where_both_spreads_are_known() -> None:
    ours, theirs = [4.6, 4.8, 4.7, 4.9, 4.5], [3.9, 4.4, 4.1]
    expected = stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval()
    found = noise(5, sample_sd(ours), paper_sd=sample_sd(theirs), paper_runs=3)
    assert found == pytest.approx((expected.high - expected.low) / 2, rel=1e-9)


def test_noise_of_a_paper_that_tells_no_spread() -> None:
    # t(4) = 2.776445; our sd stands for the paper's
    assert noise(5, 0.2) == pytest.approx(2.776445 * 0.2 * math.sqrt(1 / 5 + 1), rel=1e-6)
    assert noise(5, 0.2, paper_runs=5) == pytest.approx(2.776445 * 0.2 * math.sqrt(2 / 5), rel=1e-6)
    assert noise(5, 0.2, paper_sd=0.4) == pytest.approx(2.776445 * math.sqrt(0.04 / 5 + 0.16), rel=1e-6)


SEEDS = [4.6, 4.7, 4.8, 4.9, 5.0]  # mean 4.8, sd .158; noise against five runs: 2.776 * .158 * sqrt(.4) = .278


@pytest.mark.parametrize(
    ("values", "paper", "options", "expected"),
    [
        ([], 4.8, {}, "missing"),
        (SEEDS, None, {}, "not published"),
        (SEEDS, 4.8, {"same_data": False}, "other data"),
        ([4.8], 4.8, {"same_data": False}, "other data"),
        ([4.8, 4.9], 4.8, {}, "too few seeds"),
        (SEEDS, 4.72, {}, "holds"),
        (SEEDS, 5.05, {}, "holds"),  # beyond the margin of .2, within the noise
        (SEEDS, 5.09, {}, "differs"),  # beyond both
        (SEEDS, 4.5, {}, "differs"),  # better or worse: it differs
        (SEEDS, 4.5, {"margin": 0.3}, "holds"),  # within the margin
        ([3.0, 5.0, 7.0], 5.0, {}, "too few seeds"),  # noise of 6.4 tells nothing
        ([3.0, 5.0, 7.0], 50.0, {}, "differs"),  # but this much it does tell
        ([5.0, 5.0, 5.0], 5.2, {"margin": 0.2}, "holds"),  # 5.2 - 5.0 is above .2 in floats
    ],
)
def test_verdict(values: list[float], paper: float | None, options: dict, expected: str) -> None:
    figure = None if paper is None else Paper(paper)
    assert verdict(values, figure, **{"margin": 0.2, "paper_runs": 5, **options}) == expected


@given(st.lists(numbers, min_size=3, max_size=8), numbers, st.floats(0.01, 10), st.sampled_from([1, 5]), numbers)
def test_verdict_does_not_change_when_everything_moves(values: list[float], paper: float, margin: float, runs: int, shift: float) -> None:
    reach = noise(len(values), sample_sd(values), paper_runs=runs)
    distance = abs(mean(values) - paper)
    assume(abs(distance - max(margin, reach)) > 1e-3 and abs(reach - 3 * margin) > 1e-3)  # not on an edge
    one = verdict(values, Paper(paper), margin=margin, paper_runs=runs)
    assert one == verdict([value + shift for value in reversed(values)], Paper(paper + shift), margin=margin, paper_runs=runs)
    assert one == verdict([2 * value for value in values], Paper(2 * paper), margin=2 * margin, paper_runs=runs)


def test_a_margin_is_needed() -> None:
    with pytest.raises(ValueError, match="margin must be above 0, got 0"):
        verdict([1.0], Paper(1.0), margin=0)
