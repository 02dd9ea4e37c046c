"""Uncertainty of an ensemble's members: the chain rule of entropy, its bounds, and the heads on an ensemble."""

import math

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import nn

from attnlab.ensemble import Ensemble
from attnlab.network import Network
from attnlab.ood.aleatoric import Aleatoric
from attnlab.ood.bank import Bank
from attnlab.ood.entropy import Entropy
from attnlab.ood.extract import extract
from attnlab.ood.members import decomposition
from attnlab.ood.mutual_information import MutualInformation


def test_the_parts_add_up_and_equal_scipy() -> None:
    logits = 3 * torch.randn(40, 2, 5, dtype=torch.float64)
    total, aleatoric, information = decomposition(logits)
    torch.testing.assert_close(total, aleatoric + information, rtol=1e-12, atol=1e-13)
    p = logits.softmax(2)
    for n in range(40):
        assert information[n] == pytest.approx(jensenshannon(p[n, 0], p[n, 1]) ** 2, rel=1e-9)
        assert aleatoric[n] == pytest.approx(-(p[n] * p[n].log()).sum().item() / 2, rel=1e-12)


def test_bounds() -> None:
    same = torch.randn(6, 1, 4).expand(6, 3, 4)
    assert decomposition(same)[2].max() < 1e-15
    apart = torch.full((1, 3, 4), -1e4)
    apart[0, [0, 1, 2], [0, 1, 2]] = 1e4
    total, aleatoric, information = decomposition(apart)
    assert aleatoric == 0 and information.item() == pytest.approx(math.log(3)) and total.item() == pytest.approx(math.log(3))


def test_heads_on_an_ensemble() -> None:
    torch.manual_seed(0)
    members = [Network(nn.Linear(5, 3), shape=(5,)) for _ in range(3)]
    bank = extract(Ensemble(members), [(torch.randn(8, 5), torch.zeros(8, dtype=torch.long)) for _ in range(2)])
    assert bank.members.shape == (16, 3, 3)
    torch.testing.assert_close(Aleatoric().score(bank) + MutualInformation().score(bank), Entropy().score(bank), rtol=1e-6, atol=1e-8)
    single = extract(members[0], [(torch.randn(8, 5), torch.zeros(8, dtype=torch.long))])
    for head in (Aleatoric(), MutualInformation()):
        with pytest.raises(ValueError, match="this is one network"):
            head.score(single)
    with pytest.raises(ValueError, match=r"members of a bank are logits \(N, M, K\)"):
        Bank(torch.zeros(2, 1), torch.zeros(2, 3), torch.zeros(2, dtype=torch.long), None, torch.zeros(3, 2, 3))
