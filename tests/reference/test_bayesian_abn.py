"""The Bayesian attention branch network against a loop over images and passes (fp64), and its laws."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from attnlab.attention.branch import AttentionBranch
from attnlab.callbacks.bayesian_abn import BayesianABN, branch_of
from attnlab.network import Network


def network(*, dropout: float = 0.5) -> Network:
    torch.manual_seed(0)
    backbone = nn.Sequential()
    for name, module in (
        ("layer", nn.Conv2d(1, 4, 3, padding=1)),
        ("pool", nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())),
        ("features", nn.Dropout(0.5)),
        ("fc", nn.Linear(4, 3)),
    ):
        backbone.add_module(name, module)
    module = partial(AttentionBranch, blocks=1, width=4, dropout=dropout)
    made = Network(backbone, {"abn": {"at": "layer", "module": module}}, shape=(1, 6, 6), num_classes=3).double()
    nn.init.normal_(made.backbone.fc.weight, std=0.6)
    nn.init.normal_(branch_of(made).classify.weight, std=1.0)
    return made.eval()


def entropy(p: Tensor) -> float:
    return -sum(float(v) * float(torch.log(v)) for v in p if v > 0)


def test_equals_the_loop() -> None:
    plain, x = network(), torch.randn(16, 1, 6, 6, dtype=torch.float64) * torch.arange(1, 17).view(-1, 1, 1, 1) / 4
    tested = BayesianABN(passes=4).tested(plain).eval()
    torch.manual_seed(1)
    out = tested(x)
    torch.manual_seed(1)
    own, other = [], []
    for _ in range(4):
        own.append(tested.network(x).logits.detach().softmax(1))
        other.append(branch_of(tested.network).logits.detach().softmax(1))
    own_BK, other_BK = sum(own) / 4, sum(other) / 4
    by_attention = [entropy(b) < entropy(a) for a, b in zip(own_BK, other_BK)]
    assert True in by_attention and False in by_attention
    assert tested.by_attention_B.tolist() == by_attention
    torch.testing.assert_close(out.features, sum(member.features for member in out.members) / 4)
    for i, chosen in enumerate(by_attention):
        torch.testing.assert_close(out.logits[i].softmax(0), (other_BK if chosen else own_BK)[i])
        for t, member in enumerate(out.members):
            torch.testing.assert_close(member.logits[i].softmax(0), (other if chosen else own)[t][i])


def test_training_and_the_network_itself_are_left_alone() -> None:
    plain, x = network(), torch.randn(4, 1, 6, 6, dtype=torch.float64)
    before = plain(x).logits
    tested = BayesianABN(passes=2).tested(plain).eval()
    tested(x)
    assert torch.equal(plain(x).logits, before) and not plain.backbone.features.training
    assert len({torch.equal(tested(x).logits, tested(x).logits) for _ in range(3)}) == 1  # draws anew
    still = BayesianABN(passes=2, at="backbone.pool").tested(network(dropout=0.0)).eval()  # nothing drops: the plain branches
    out = still(x)
    torch.testing.assert_close(out.members[0].logits, out.members[1].logits)


def test_a_tie_is_the_networks_own() -> None:
    equal = network(dropout=0.0)
    for last in (equal.backbone.fc, branch_of(equal).classify):
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias) if last.bias is not None else None
    tested = BayesianABN(passes=2).tested(equal).eval()
    tested(torch.randn(3, 1, 6, 6, dtype=torch.float64))
    assert not tested.by_attention_B.any()


def test_refusals() -> None:
    with pytest.raises(ValueError, match="passes must be at least 1"):
        BayesianABN(passes=0)
    with pytest.raises(ValueError, match="needs one attention branch, and the network has 0"):
        branch_of(Network(nn.Linear(4, 3), shape=(4,)))
