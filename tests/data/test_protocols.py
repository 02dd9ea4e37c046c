"""Few images a class, long tails, wrong labels: counts, nesting, and that only the training split changes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attnlab.data.digits import Digits
from attnlab.data.protocols import balanced, flipped, long_tail

LABELS = torch.arange(1000) % 10


def test_balanced_choices_are_nested() -> None:
    few, more = balanced(LABELS, 3, 0), balanced(LABELS, 20, 0)
    assert LABELS[few].bincount().tolist() == [3] * 10 and set(few.tolist()) < set(more.tolist())
    assert not torch.equal(balanced(LABELS, 3, 1), few)
    with pytest.raises(ValueError, match="per_class=101 is more than the 100 training images of class 0"):
        balanced(LABELS, 101, 0)


def test_a_long_tail() -> None:
    counts = LABELS[long_tail(LABELS, 100, 0)].bincount().tolist()
    assert counts == [100, 60, 36, 22, 13, 8, 5, 3, 2, 1]  # round(100 * 100 ** (-k / 9))
    assert (torch.arange(200) % 2)[long_tail(torch.arange(200) % 2, 99, 0)].bincount().tolist() == [100, 1]
    assert len(long_tail(LABELS, 1, 0)) == 1000


@settings(max_examples=30, deadline=None)
@given(rate=st.floats(0, 1), num_classes=st.integers(2, 12), kind=st.sampled_from(["symmetric", "asymmetric"]))
def test_exactly_so_many_labels_are_wrong(rate: float, num_classes: int, kind: str) -> None:
    labels = torch.arange(300) % num_classes
    found = flipped(labels, rate, num_classes, 0, kind=kind)
    wrong = found != labels
    assert wrong.sum() == round(rate * 300) and found.min() >= 0 and found.max() < num_classes
    if kind == "asymmetric":
        assert torch.equal(found[wrong], (labels[wrong] + 1) % num_classes)


def test_symmetric_noise_reaches_all_other_classes_alike() -> None:
    labels = torch.zeros(9000, dtype=torch.int64)
    counts = flipped(labels, 1.0, 4, 0).bincount().double()
    assert counts[0] == 0 and (counts[1:] - 3000).abs().max() < 200


def test_only_the_training_split_changes() -> None:
    plain, noisy = Digits(val=0.2), Digits(val=0.2, label_noise=0.3)
    for data in (plain, noisy):
        data.prepare()
    for split in ("val", "test"):
        assert torch.equal(plain.split(split).labels, noisy.split(split).labels)
    labels, true = noisy.split("train").labels, noisy.true_labels_N
    assert torch.equal(true, plain.split("train").labels) and plain.true_labels_N is None
    assert (labels != true).double().mean() == pytest.approx(0.3, abs=1e-3)
    assert plain.describe()["digests"]["train"] != noisy.describe()["digests"]["train"]
    few = Digits(per_class=4, imbalance=4.0, batch_size=8)
    few.prepare()
    assert few.split("train").labels.bincount().tolist() == [4, 3, 3, 3, 2, 2, 2, 1, 1, 1]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"per_class": 0}, "per_class must be at least 1"),
        ({"per_class": 2, "limit": 20}, "give one of them"),
        ({"imbalance": 0.5}, "at least 1, got 0.5"),
        ({"label_noise": 1.5}, r"in \[0, 1\], got 1.5"),
    ],
)
def test_mistakes(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Digits(**options)
