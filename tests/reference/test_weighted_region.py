"""The head of weighted regions against a loop over regions (fp64), and its laws."""

import math

import pytest
import torch

from attnlab.heads.weighted_region import WeightedRegions, rank_loss
from tests.component_rules import check_rules, close


def head_of(**options) -> WeightedRegions:
    torch.manual_seed(0)
    return WeightedRegions((6,), read_shapes=[(5, 4, 4)], num_classes=3, **{"hidden": 4, **options})


@pytest.mark.parametrize("soft", [False, True])
def test_equals_a_loop(soft: bool) -> None:
    head = head_of(regions=0.5, rank=2.0, error=3.0).double()
    g, x, labels = torch.randn(2, 6).double(), torch.randn(2, 5, 4, 4).double(), torch.tensor([2, 0])
    target = torch.tensor([[0.0, 0.3, 0.7], [1.0, 0.0, 0.0]]) if soft else labels
    weights = target.double() if soft else torch.eye(3).double()[labels]
    logits, scored = head(g, x, target), head.score(x).detach()
    classify = head.classify_region
    ce = rank = error = 0.0
    for b in range(2):
        phi, s, p = [], [], []
        for i in range(2):
            for j in range(2):
                window = (slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2))
                phi.append(x[b][:, *window].mean((1, 2)))
                s.append(scored[b, 0][window].mean().item())
                z = (classify.weight @ phi[-1] + classify.bias).detach()
                p.append(float(z.softmax(0) @ weights[b]))
                ce -= float(z.log_softmax(0) @ weights[b]) / 8
        a = torch.tensor(s, dtype=torch.float64).softmax(0)
        close(head.map[b].flatten(), a)
        joint = torch.cat([g[b], sum(w * v for w, v in zip(a, phi))])
        close(logits[b], (head.classify.weight @ joint + head.classify.bias).detach())
        for r in range(4):
            error += (1 / (1 + math.exp(-s[r])) - p[r]) ** 2 / 8
            rank += sum(max(0, s[r] - s[q] + 1) for q in range(4) if p[r] < p[q]) / 6 / 2
    assert head.penalty.item() == pytest.approx(0.5 * ce + 2 * rank + 3 * error, abs=1e-9 if not soft else 1e-6)


def test_rank_loss_is_zero_where_the_order_agrees_by_one() -> None:
    p = torch.tensor([[0.1, 0.5, 0.3]])
    assert rank_loss(torch.tensor([[0.0, 2.0, 1.0]]), p) == 0
    assert rank_loss(torch.tensor([[2.0, 0.0, 1.0]]), p) == pytest.approx((3 + 2 + 2) / 3)
    assert rank_loss(torch.tensor([[0.0, 0.0, 0.0]]), torch.full((1, 3), 0.5)) == 0  # ties ask for nothing


def test_scores_learn_which_region_tells_the_class() -> None:
    """Only the upper left region says the class; the others are noise."""
    torch.manual_seed(0)
    head = WeightedRegions((4,), read_shapes=[(4, 4, 4)], num_classes=2, hidden=8)
    step = torch.optim.Adam(head.parameters(), lr=0.02)
    for _ in range(120):
        y, x = torch.randint(2, (32,)), torch.randn(32, 4, 4, 4)
        x[:, 2:] = 0
        x[:, 2, :2, :2] = 3.0  # where the scores can find it
        x[:, 0, :2, :2] += 4.0 * (2 * y - 1)[:, None, None]
        head(torch.zeros(32, 4), x, y)
        step.zero_grad()
        head.penalty.backward()
        step.step()
    assert (head.map.flatten(1).argmax(1) == 0).float().mean() > 0.9


def test_p_has_no_gradient_and_evaluation_no_penalty() -> None:
    head = head_of(regions=0.0)
    g, x = torch.randn(2, 6), torch.randn(2, 5, 4, 4)
    head(g, x, torch.tensor([1, 2]))
    head.penalty.backward()
    assert head.classify_region.weight.grad is None or not head.classify_region.weight.grad.any()
    head(g, x, None)
    assert head.penalty is None


def test_rules() -> None:
    check_rules(lambda: head_of(), torch.randn(3, 6), torch.randn(3, 5, 4, 4), torch.tensor([0, 2, 1]))


@pytest.mark.parametrize("options", [{"grid": 0}, {"grid": 5}, {"hidden": 0}, {"regions": -1.0}, {"rank": -1.0}, {"error": -1.0}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        head_of(**options)
    with pytest.raises(ValueError, match="shape"):
        WeightedRegions((6, 2, 2), read_shapes=[(5, 4, 4)], num_classes=3)
    with pytest.raises(ValueError, match="reads"):
        WeightedRegions((6,), read_shapes=[], num_classes=3)
