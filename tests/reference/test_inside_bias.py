"""InsideBias: the ratio where it is known, digits in colours, and a run."""

import pytest
import torch
from torch import nn

from attnlab.data.digits import Digits
from attnlab.evaluation.inside_bias import InsideBias, activation_ratio, activations
from attnlab.network import Network
from tests.reference.explained import hooks


def test_a_group_scaled_by_s_has_the_ratio_s_at_every_place() -> None:
    """Without biases and norms a ReLU network is homogeneous."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 5, 3, bias=False), nn.ReLU(), nn.Conv2d(5, 4, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2)]
    backbone = nn.Sequential(*layers).double()
    network = Network(backbone, shape=(3, 6, 6))
    x = torch.randn(7, 3, 6, 6, dtype=torch.float64)
    hooked = hooks(network)
    found = activations(network, [x, 0.3 * x], ["0", "1", "3"])
    groups = torch.arange(14) // 7
    assert hooks(network) == hooked and [len(one) for one in found.values()] == [14] * 3
    for lambda_N in found.values():
        assert activation_ratio(lambda_N, groups) == pytest.approx(0.3, abs=1e-12)
        assert activation_ratio(lambda_N[:7].repeat(2), groups) == 1
    expected = backbone[1](backbone[0](x)).mean((2, 3)).amax(1)
    torch.testing.assert_close(found["1"][:7], expected)
    torch.testing.assert_close(found["0"], found["1"])
    assert activation_ratio(torch.zeros(4), torch.arange(4) // 2) == 1


def test_digits_in_colours() -> None:
    data = Digits(colour_bias=0.95, holdout=(9,), ood=("photos", "heldout"))
    data.prepare()
    train, test, plain = data.split("train"), data.split("test"), Digits(holdout=(9,)).split("train")
    assert data.shape == (3, 16, 16) and len(set(data.mean)) == len(set(data.std)) == 1
    assert (train.groups == 0).double().mean() == pytest.approx(0.95, abs=1e-3)
    assert (test.groups == 0).double().mean() == pytest.approx(0.5, abs=2e-3)
    by_class = torch.stack([(train.groups[train.labels == k] == 0).double().mean() for k in range(9)])
    assert (by_class - 0.95).abs().max() < 0.01
    red, green = train.groups == 0, train.groups == 1
    assert torch.equal(train.images[red][:, :1], plain.images[red]) and torch.equal(train.images[green][:, 1:2], plain.images[green])
    x = data.normalise(train.images)
    assert abs(float(x.mean())) < 1e-3 and float(x.square().mean()) == pytest.approx(1, abs=1e-3)
    assert torch.equal(train.subset(torch.tensor([3, 1])).groups, train.groups[[3, 1]])
    assert plain.groups is None and data.split("heldout").shape == (3, 16, 16)
    with pytest.raises(ValueError, match="colour_bias is a share in"):
        Digits(colour_bias=1.5)


def test_of_a_run(run) -> None:
    metrics = run("evaluator=[inside_bias]", "data.colour_bias=0.9")["metrics"]
    places = ("layer1", "layer2", "layer3", "layer4")
    assert {f"inside_bias/{name}/ratio" for name in places} | {"inside_bias/ratio", "inside_bias/0/acc", "inside_bias/1/acc"} <= set(
        metrics
    )
    assert metrics["inside_bias/ratio"] == metrics["inside_bias/layer4/ratio"] and 0 < metrics["inside_bias/ratio"] <= 1
    with pytest.raises(ValueError, match="num must be at least 1"):
        InsideBias(num=0)
