"""Slimming: the penalty's subgradient, which channels go, and that they give 0 from then on."""

import pytest
import torch

from attnlab.callbacks.slimming import Slimming
from tests.reference.small_learner import batches, small_learner, take


def test_the_scales_shrink_and_the_smallest_channels_go() -> None:
    callback = Slimming(weight=0.5, rate=0.5, prune=0.5)
    learner, plain = small_learner(callbacks={"slimming": callback}), small_learner()
    plain.load_state_dict(learner.state_dict())
    norm, other = learner.network.backbone[1], plain.network.backbone[1]
    given = batches(8)
    for one in (learner, plain):
        take(one, given[:1])
    torch.testing.assert_close(norm.weight.detach(), other.weight.detach() - 0.1 * 0.5)  # all scales are 1 at the start
    assert torch.equal(norm.bias, other.bias)
    learner.totals.steps = 1
    for step, batch in enumerate(given[1:], start=2):
        size = None
        learner.step(batch, learner.totals)
        if step == 4:
            size = norm.weight.detach().abs().clone()
        learner.after_step(step)
        if size is not None:
            (mask,) = callback.masks.masks.values()
            assert mask.tolist() == (size >= size.sort().values[4]).double().tolist()
    assert mask.sum() == 4 and callback.masks.share() == 0.5
    row: dict[str, float] = {}
    callback.on_epoch_end(learner, row)
    assert row == {"channels/kept": 0.5}
    dead = mask == 0
    assert (norm.weight[dead] == 0).all() and (norm.bias[dead] == 0).all() and (norm.weight[~dead] != 0).all()
    assert (norm(torch.randn(6, 8).double())[:, dead] == 0).all()


def test_a_rate_that_rounds_to_all_channels_leaves_the_largest() -> None:
    callback = Slimming(weight=0.0, rate=0.95, prune=0.5)
    learner = small_learner(callbacks={"slimming": callback})
    take(learner, batches(4))
    (mask,) = callback.masks.masks.values()
    assert mask.sum() == 1 and mask.argmax() == learner.network.backbone[1].weight.abs().argmax()


def test_state_and_mistakes() -> None:
    callback = Slimming()
    small_learner(callbacks={"slimming": callback})
    callback.load_state_dict({"1": torch.tensor([0.0, 1] * 4)})
    assert callback.state_dict()["1"].tolist() == [0.0, 1] * 4
    with pytest.raises(ValueError, match=r"callback slimming\.at: no batch norm matches 'bn7'"):
        small_learner(callbacks={"slimming": Slimming(at=["bn7"])})
    with pytest.raises(ValueError, match="rate in"):
        Slimming(rate=1.0)
