"""Euclidean distance to class centroids against a loop."""

import math

import pytest
import torch

from attnlab.ood.bank import Bank
from attnlab.ood.centroid import Euclidean


def bank_of(seed, num=60, dim=7, num_classes=4):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(num, dim, generator=generator, dtype=torch.float64)
    return Bank(features, torch.zeros(num, num_classes), torch.randint(num_classes, (num,), generator=generator))


def slow(train, test, normalize):
    def read(row):
        row = row.tolist()
        norm = math.sqrt(sum(v * v for v in row)) if normalize else 1.0
        return [v / norm for v in row]

    centroids = []
    for label in sorted(set(train.labels.tolist()) - {-1}):
        mine = [read(f) for f, y in zip(train.features, train.labels) if y == label]
        centroids.append([sum(column) / len(mine) for column in zip(*mine)])
    return [min(math.dist(read(f), centroid) for centroid in centroids) for f in test.features]


@pytest.mark.parametrize("normalize", [False, True])
def test_equals_a_loop(normalize):
    train, test = bank_of(0), bank_of(1)
    head = Euclidean(normalize=normalize)
    head.fit(train)
    torch.testing.assert_close(head.score(test), torch.tensor(slow(train, test, normalize), dtype=torch.float64))


def test_classes_are_those_that_have_samples():
    train, test = bank_of(0), bank_of(1)
    labels = torch.where(train.labels == 1, -1, train.labels * 5)
    gaps = Bank(train.features, train.logits, labels)
    head = Euclidean()
    head.fit(gaps)
    torch.testing.assert_close(head.score(test), torch.tensor(slow(gaps, test, False), dtype=torch.float64))
    assert len(head.centroid_CD) == 3


def test_exact_beside_a_far_away_centroid():
    """By norms less products, fp32 would see nothing of the last digits of features around 1e4."""
    features = 1e4 + torch.tensor([[0.0, 0.0], [0.01, 0.0]])
    bank = Bank(features, torch.zeros(2, 1), torch.tensor([0, 0]))
    head = Euclidean()
    head.fit(bank)
    half = float(features[1, 0].double() - features[0, 0].double()) / 2
    assert head.score(bank).tolist() == pytest.approx([half, half], rel=1e-9)


def test_laws():
    train, test = bank_of(0), bank_of(1)
    turn = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)).Q
    one, two = Euclidean(), Euclidean()
    one.fit(train)
    two.fit(Bank(train.features @ turn + 3, train.logits, train.labels))
    torch.testing.assert_close(two.score(Bank(test.features @ turn + 3, test.logits, test.labels)), one.score(test))
    far = Bank(test.features + 100, test.logits, test.labels)
    assert (one.score(far) > one.score(test)).all()


def test_refused():
    train = bank_of(0)
    with pytest.raises(ValueError, match="must be fitted"):
        Euclidean().score(train)
    with pytest.raises(ValueError, match="no labelled sample"):
        Euclidean().fit(Bank(train.features, train.logits, torch.full_like(train.labels, -1)))
    with pytest.raises(ValueError, match="names no `features` place"):
        Euclidean().fit(Bank(train.features[:, :0], train.logits, train.labels))
