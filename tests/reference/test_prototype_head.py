"""The prototype head against torch's mixture of Gaussians (fp64), and its laws."""

import math

import pytest
import torch
from torch import distributions

from attnlab.heads.prototype import PrototypeHead
from tests.component_rules import check_rules, close


def test_equals_torchs_mixture_of_gaussians_up_to_its_constant() -> None:
    torch.manual_seed(0)
    head, h = PrototypeHead((5,), num_classes=3, prototypes=2, sigma=1.7).double(), torch.randn(4, 5, dtype=torch.float64)
    for k in range(3):
        parts = distributions.Independent(distributions.Normal(head.prototypes[k].detach(), 1.7), 1)
        mixture = distributions.MixtureSameFamily(distributions.Categorical(torch.ones(2).double()), parts)
        constant = math.log(2) + 5 * math.log(1.7 * math.sqrt(2 * math.pi))
        close(head(h)[:, k], mixture.log_prob(h) + constant)


def test_one_prototype_is_a_linear_classifier_to_softmax() -> None:
    torch.manual_seed(0)
    head, h = PrototypeHead((5,), num_classes=3).double(), torch.randn(4, 5, dtype=torch.float64)
    p = head.prototypes[:, 0].detach()
    close(head(h).softmax(1), ((h @ p.T - (p**2).sum(1) / 2) / 5).softmax(1))  # sigma^2 = D = 5


def test_logits_fall_with_the_distance() -> None:
    head = PrototypeHead((5,), num_classes=3, prototypes=4)
    far = torch.full((1, 5), 3.0) * torch.tensor([[1.0], [10.0], [100.0]])
    z = head(far).amax(1)
    assert z[0] > z[1] > z[2] and (z <= math.log(4)).all()
    assert head(head.prototypes[1, :1])[0].argmax() == 1


def test_rules() -> None:
    check_rules(lambda: PrototypeHead((5,), num_classes=3, prototypes=2), torch.randn(4, 5))


@pytest.mark.parametrize("options", [{"prototypes": 0}, {"sigma": 0.0}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        PrototypeHead((5,), num_classes=3, **options)
    with pytest.raises(ValueError, match="shape"):
        PrototypeHead((5, 2, 2), num_classes=3)
