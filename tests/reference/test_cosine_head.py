"""The cosine head against a loop and torch's cosine similarity (fp64), and its laws."""

import math

import pytest
import torch
import torch.nn.functional as F

from attnlab.heads.cosine import CosineHead
from tests.component_rules import check_rules, close


def made(**options) -> tuple[CosineHead, torch.Tensor]:
    torch.manual_seed(0)
    return CosineHead((5,), num_classes=3, **options).double(), torch.randn(4, 5, dtype=torch.float64)


def test_equals_torchs_cosine_similarity_and_a_loop() -> None:
    head, h = made()
    z = head(h)
    close(z, 16 * F.cosine_similarity(h[:, None], head.weight[None], dim=2).detach())
    a, b = h[2].tolist(), head.weight[1].tolist()
    expected = 16 * sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))
    assert z[2, 1].item() == pytest.approx(expected, abs=1e-12)


def test_lengths_do_not_matter_and_logits_are_bounded() -> None:
    head, h = made(scale=20.0)
    close(head(7 * h), head(h).detach())
    before = head(h).detach()
    head.weight.data *= torch.tensor([[2.0], [0.5], [9.0]])
    close(head(h), before)
    close(head(head.weight)[1, 1], torch.tensor(20.0, dtype=torch.float64))
    assert (head(torch.zeros(1, 5).double()) == 0).all()


def test_learned_scale_starts_at_the_scale() -> None:
    head, h = made(learn_scale=True)
    fixed, _ = made()
    close(head(h), fixed(h).detach())
    head(h)[0, 0].backward()
    close(head.log_gain.grad, head(h)[0, 0].detach())


def test_smallest_cross_entropy_of_a_simplex() -> None:
    simplex = torch.eye(4, dtype=torch.float64) - 1 / 4
    head = CosineHead((4,), num_classes=4, scale=3.0).double()
    head.weight.data = simplex
    loss = F.cross_entropy(head(simplex), torch.arange(4))
    assert loss.item() == pytest.approx(math.log(1 + 3 * math.exp(-3.0 * 4 / 3)))


def test_rules() -> None:
    check_rules(lambda: CosineHead((5,), num_classes=3, learn_scale=True), torch.randn(4, 5))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="scale"):
        CosineHead((5,), num_classes=3, scale=0)
    with pytest.raises(ValueError, match="shape"):
        CosineHead((5, 2, 2), num_classes=3)
