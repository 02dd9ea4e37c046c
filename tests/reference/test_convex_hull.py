"""Distance to convex hulls against all faces of a hull, one by one (fp64), and its laws."""

import itertools

import pytest
import torch

from attnlab.ood.bank import Bank
from attnlab.ood.convex_hull import ConvexHull, distance_to_hull, project_on_simplex


def slow(z: torch.Tensor, points: torch.Tensor) -> float:
    """The nearest point of a hull lies inside some face, and is there the projection on the face's plane: try every face."""
    best = float("inf")
    for size in range(1, len(points) + 1):
        for chosen in itertools.combinations(range(len(points)), size):
            base, edges = points[chosen[0]], points[list(chosen[1:])] - points[chosen[0]]
            inner = torch.linalg.lstsq(edges.T, (z - base)[:, None], driver="gelsd").solution[:, 0] if size > 1 else edges[:, 0]
            if (inner >= -1e-12).all() and inner.sum() <= 1 + 1e-12:
                best = min(best, float((z - base - inner @ edges).norm()))
    return best


@pytest.mark.parametrize("dim", [2, 7])
def test_equals_a_search_over_all_faces(dim: int) -> None:
    torch.manual_seed(0)
    points, z = torch.randn(5, dim).double() + 3, 1.5 * torch.randn(12, dim).double() + 3
    found = distance_to_hull(z, points)
    for n in range(len(z)):
        assert found[n].item() == pytest.approx(slow(z[n], points), abs=1e-4 if found[n] < 1e-3 else 1e-7)
    for size in (1e-6, 1e6):  # when the solver stops is relative to the size of the features
        torch.testing.assert_close(distance_to_hull(size * z, size * points) / size, found, rtol=1e-6, atol=1e-4)
        near = distance_to_hull(size * z, size * points)[found > 1e-3] / size
        torch.testing.assert_close(near, found[found > 1e-3], rtol=1e-7, atol=0)


def test_inside_it_is_zero_and_one_point_is_a_neighbour() -> None:
    torch.manual_seed(0)
    points = torch.randn(20, 4).double()
    inside = torch.rand(8, 20).double().softmax(1) @ points
    assert distance_to_hull(inside, points).max() < 1e-4
    z = torch.randn(6, 4).double()
    torch.testing.assert_close(distance_to_hull(z, points[:1]), (z - points[0]).norm(dim=1))
    torch.testing.assert_close(distance_to_hull(z, points[:1].expand(3, -1)), (z - points[0]).norm(dim=1))  # a hull of one point thrice


def test_the_projection_is_the_nearest_of_the_simplex() -> None:
    torch.manual_seed(0)
    v = 2 * torch.randn(50, 6).double()
    w = project_on_simplex(v)
    torch.testing.assert_close(w.sum(1), torch.ones(50).double())
    assert (w >= 0).all()
    slope = ((v - w)[:, None] * (torch.eye(6).double() - w[:, None])).sum(2)  # towards every corner
    assert (slope <= 1e-12).all()


def banks() -> tuple[Bank, Bank]:
    torch.manual_seed(0)
    labels = torch.tensor([0, 0, 0, 0, 2, 2, 2, 2, 2, -1])
    features = torch.randn(10, 3).double() + 4 * labels[:, None].clamp_min(0)
    features[-1] = 100
    return Bank(features, torch.zeros(10, 3), labels), Bank(torch.randn(7, 3).double() * 4, torch.zeros(7, 3), torch.zeros(7).long())


def test_the_score_is_the_distance_to_the_nearest_class() -> None:
    train, test = banks()
    head = ConvexHull().fit(train)
    assert head.classes == [0, 2]  # not -1
    assert len(head.fit(train).points) == 2  # fitted anew, nothing stays
    expected = torch.tensor([[slow(z, train.features[train.labels == c]) for c in (0, 2)] for z in test.features], dtype=torch.float64)
    torch.testing.assert_close(head.distances(test), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(head.score(test), expected.amin(1), rtol=0, atol=1e-4)
    assert head.distances(train)[:4].argmin(1).tolist() == [0] * 4
    assert (head.score(test.features + 100) > head.score(test)).all()


def test_samples_are_drawn_by_the_seed_and_fewer_points_are_never_nearer() -> None:
    train, test = banks()
    few, again, other = (ConvexHull(samples=2, seed=seed).fit(train) for seed in (3, 3, 4))
    assert torch.equal(few.score(test), again.score(test)) and not torch.equal(few.score(test), other.score(test))
    assert (few.score(test) >= ConvexHull(samples=None).fit(train).score(test) - 1e-6).all()


def test_refused() -> None:
    train, _ = banks()
    for options in ({"samples": 0}, {"steps": 0}):
        with pytest.raises(ValueError, match=next(iter(options))):
            ConvexHull(**options)
    with pytest.raises(ValueError, match="must be fitted"):
        ConvexHull().score(train)
    with pytest.raises(ValueError, match="no labelled sample"):
        ConvexHull().fit(Bank(train.features, train.logits, torch.full_like(train.labels, -1)))
    with pytest.raises(ValueError, match="names no `features` place"):
        ConvexHull().fit(Bank(train.features[:, :0], train.logits, train.labels))
