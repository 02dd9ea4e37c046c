"""Classification by class means and hulls against scikit-learn, and where only one of them is right."""

from types import SimpleNamespace

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from torch import Tensor

from attnlab.evaluation.nearest_class import NearestClass
from attnlab.ood.bank import Bank


def metrics(train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], **options: object) -> dict[str, float]:
    banks = {name: Bank(x.double(), torch.zeros(len(x), 5), y) for name, (x, y) in {"train": train, "test": test}.items()}
    return NearestClass(**options).run(SimpleNamespace(bank=banks.__getitem__))


@pytest.fixture
def clouds() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Three classes, of which no number is the first: 1, 2 and 4 of five."""
    torch.manual_seed(0)
    centres = 2 * torch.randn(3, 3)
    y = torch.tensor([1, 2, 4])
    return tuple((centres.repeat(n, 1) + 1.5 * torch.randn(3 * n, 3), y.repeat(n)) for n in (20, 40))


def test_the_nearest_mean_is_scikit_learn_s(clouds) -> None:
    train, test = clouds
    for normalize in (False, True):
        one, other = ((x / x.norm(dim=1, keepdim=True) if normalize else x, y) for x, y in clouds)
        expected = NearestCentroid().fit(*one).score(*other)
        assert 0.5 < expected < 1 and metrics(train, test, normalize=normalize)["nearest_class/mean_acc"] == pytest.approx(expected)


def test_hulls_of_one_point_are_the_nearest_neighbour(clouds) -> None:
    (x, y), test = clouds
    expected = KNeighborsClassifier(1).fit(x[:3], y[:3]).score(*test)
    assert metrics((x[:3], y[:3]), test, samples=1)["nearest_class/hull_acc"] == pytest.approx(expected)


def test_a_long_class_beside_a_point() -> None:
    """(9, 1) is nearer to the mean of the far class, and inside the reach of the long one's hull."""
    train = torch.tensor([[0.0, 0], [10, 0], [9, 4], [9, 4]]), torch.tensor([0, 0, 3, 3])
    found = metrics(train, (torch.tensor([[9.0, 1.0], [9.0, 3.9]]), torch.tensor([0, 3])), samples=None)
    assert found == {"nearest_class/mean_acc": 0.5, "nearest_class/hull_acc": 1.0}
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        NearestClass(samples=0)
