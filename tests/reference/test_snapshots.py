"""Snapshots and MC dropout: members of one training, and their Output."""

import copy
import math
from collections import OrderedDict

import pytest
import torch
from torch import nn

from attnlab.callbacks.mc_dropout import MCDropout
from attnlab.callbacks.snapshots import Snapshots
from attnlab.network import Network
from attnlab.training.schedules import cycles
from tests.reference.small_learner import batches, small_learner


def test_cycles_are_cosines_one_after_another() -> None:
    factor = cycles(lengths=[1, 3], total_steps=80, steps_per_epoch=10)
    for step in range(80):
        t = step / 20 if step < 20 else (step - 20) / 60
        assert factor(step) == pytest.approx((1 + math.cos(math.pi * t)) / 2)
    assert cycles(lengths=[1, 1], warmup=1, total_steps=80, steps_per_epoch=10)(0) == pytest.approx(1 / 11)
    assert cycles(lengths=[1, 1], final=0.1, total_steps=10, steps_per_epoch=1)(9) > 0.1
    for lengths in ([], [1, 0]):
        with pytest.raises(ValueError, match="one or more numbers above 0"):
            cycles(lengths=lengths, total_steps=8, steps_per_epoch=1)


def test_the_networks_at_the_ends_of_cycles_are_tested() -> None:
    callback = Snapshots(lengths=[1, 1, 2], members=2)
    learner = small_learner(callbacks={"snapshots": callback})
    assert learner.tested() is learner.network
    expected = []
    for step, batch in enumerate(batches(8), start=1):
        learner.step(batch, learner.totals)
        learner.after_step(step)
        if step in (4, 8):  # of 8 steps; the first cycle, to step 2, is left out
            expected.append(copy.deepcopy(learner.network))
    members = learner.tested().members
    assert [one.state_dict().keys() for one in members] == [one.state_dict().keys() for one in expected]
    for one, other in zip(members, expected, strict=True):
        torch.testing.assert_close(one.state_dict(), other.state_dict(), rtol=0, atol=0)
    again = Snapshots(lengths=[1, 1, 2], members=2)
    again.on_fit_start(learner)
    again.load_state_dict(copy.deepcopy(callback.state_dict()))
    assert not any(parameter.requires_grad for one in (*members, *again.taken) for parameter in one.parameters())
    with pytest.raises(ValueError, match="one or more numbers above 0"):
        Snapshots(lengths=[1, 0])
    torch.testing.assert_close(again.state_dict(), callback.state_dict(), rtol=0, atol=0)


def test_mc_dropout_is_the_mean_over_passes_that_drop() -> None:
    layers = {"0": nn.Linear(5, 40), "1": nn.BatchNorm1d(40), "2": nn.Dropout(0.5), "features": nn.Identity(), "fc": nn.Linear(40, 3)}
    network = Network(nn.Sequential(OrderedDict(layers)), shape=(5,))
    tested = MCDropout(passes=6).tested(network).eval()
    assert tested.network.backbone[2].training and not tested.network.backbone[1].training
    x = torch.randn(4, 5)
    torch.manual_seed(0)
    out = tested(x)
    torch.manual_seed(0)
    p = torch.stack([tested.network(x).logits.double().softmax(1) for _ in range(6)]).mean(0)
    torch.testing.assert_close(out.logits.exp(), p)
    torch.testing.assert_close(out.features, torch.stack([one.features for one in out.members]).mean(0))
    assert len(MCDropout(passes=1).tested(network).eval()(x).members) == 1
    assert len(out.members) == 6 and not torch.equal(out.members[0].logits, out.members[1].logits)
    with pytest.raises(ValueError, match="finds no dropout in the network"):
        MCDropout().dropping(Network(nn.Linear(5, 3), shape=(5,)))
    assert MCDropout(at="backbone.2").dropping(network) == ["backbone.2"]
    with pytest.raises(ValueError, match=r"no module matches 'backbone\.drop'"):
        MCDropout(at="backbone.drop").dropping(network)


def test_the_members_of_a_run(run) -> None:
    words = ["callback=[snapshots]", "callback.snapshots.lengths=[1,1]", "schedule=cycles", "schedule.lengths=[1,1]"]
    found = run(*words, "ood=[mutual_information]")
    assert 0 < found["metrics"]["ood/mutual_information/photos/auroc"] < 1
