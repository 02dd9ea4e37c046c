"""CAT: the joined head against the authors' code; at its start it is the mean of the members' logits."""

import pytest
import torch
from torch import nn

from attnlab.ensemble.concatenation import Concatenation, joined_head
from attnlab.network import Network, Output
from tests.golden_numbers import golden


class Backbone(nn.Module):
    def __init__(self, width: int, classes: int = 3) -> None:
        super().__init__()
        self.features, self.fc = nn.Linear(5, width), nn.Linear(width, classes)

    def forward(self, x):
        return self.fc(self.features(x))


def test_equals_the_released_code() -> None:
    gold = golden("components", "cat_")
    heads = []
    for number in range(3):
        head = nn.Linear(*gold[f"w{number}"].T.shape).double()
        head.load_state_dict({"weight": gold[f"w{number}"], "bias": gold[f"b{number}"]})
        heads.append(head)
    joined = joined_head(heads)
    features = torch.cat([gold[f"f{number}"] for number in range(3)], 1)
    for found, expected in ((joined.weight, gold["head_w"]), (joined.bias, gold["head_b"]), (joined(features), gold["logits"])):
        torch.testing.assert_close(found.detach(), expected, rtol=1e-12, atol=1e-13)


def test_it_starts_as_the_mean_of_logits() -> None:
    members = [Network(Backbone(width), shape=(5,)).double() for width in (4, 6)]
    joined, x = Concatenation(members), torch.randn(7, 5, dtype=torch.float64)
    out = joined(x)
    torch.testing.assert_close(out.logits, torch.stack([member(x).logits for member in members]).mean(0))
    assert out.features.shape == (7, 10) and len(out.members) == 2 and out.fc is joined.fc


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="a Linear at fc of every member, one has Identity"):
        joined_head([nn.Linear(2, 3), nn.Identity()])
    with pytest.raises(ValueError, match="disagree on the classes: 3, 4"):
        joined_head([nn.Linear(2, 3), nn.Linear(2, 4)])
    with pytest.raises(ValueError, match="at least one member"):
        Concatenation([])
    featureless = Network(Backbone(4), shape=(5,))
    featureless.forward = lambda x, target=None: Output(torch.zeros(2, 3), None, None)
    with pytest.raises(ValueError, match="names no `features` place"):
        Concatenation([Network(Backbone(4), shape=(5,)), featureless])(torch.zeros(2, 5))
