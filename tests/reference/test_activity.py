"""Pruning by activations: votes and densities against loops over an epoch's images, and who goes."""

import pytest
import torch
from torch import nn

from attnlab.callbacks.activation_density import ActivationDensity, densest
from attnlab.callbacks.majority_vote import MajorityVote
from attnlab.pruning.activity import Gathered
from tests.reference.small_learner import batches, small_learner, take


class Epoch:
    """What the callbacks ask of a learner at an epoch's end."""

    def __init__(self, learner, epoch: int, num: int) -> None:
        self.settings, self.current_epoch = learner.settings, epoch
        self.settings.max_epochs = num


def activations(learner, given) -> torch.Tensor:
    """Of the batch norm, after a ReLU, as training saw them: the learner does not move."""
    network = learner.network.backbone
    return torch.cat([network[1].train()(network[0](batch.x)).relu() for batch in given])


def test_activations_in_bf16_are_counted_in_full() -> None:
    maps = torch.randn(37, 8, 9, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    for callback in (ActivationDensity(), MajorityVote()):
        found, expected = Gathered(callback.count, torch.ones(8)), callback.count(maps.double().relu()).double().mean(0)
        found(nn.BatchNorm2d(8), (), maps)
        torch.testing.assert_close(found.take(together=False).double(), expected, rtol=1e-6, atol=0)


def test_votes() -> None:
    callback = MajorityVote(share=0.4, start=0.0, stop=1.0)
    learner = small_learner(callbacks={"vote": callback}, lr=0.0)
    given = batches(3)
    take(learner, given)
    callback.masks.norms["1"]._forward_hooks.clear()
    a = activations(learner, given)
    votes = torch.stack([(row > row.mean()).double() for row in a]).mean(0)
    row: dict[str, float] = {}
    callback.on_epoch_end(Epoch(learner, 0, 2), row)
    (mask,) = callback.masks.masks.values()
    assert mask.tolist() == (votes >= 0.4).double().tolist() and 0 < mask.sum() < 8
    assert row["channels/kept"] == mask.mean() and (learner.network.backbone[1].weight[mask == 0] == 0).all()
    late = MajorityVote(share=0.9, start=0.0, stop=0.5)
    assert late.choose(Epoch(learner, 1, 2), {"1": votes}) == {}


def test_densities() -> None:
    callback = ActivationDensity(tolerance=0.1, patience=1, stop=1.0, at=["**"])
    learner = small_learner(callbacks={"density": callback}, lr=0.0)
    given = batches(3)
    rows: list[dict[str, float]] = []
    for epoch in range(2):
        take(learner, given)
        rows.append({})
        callback.on_epoch_end(Epoch(learner, epoch, 3), rows[-1])
    callback.masks.norms["1"]._forward_hooks.clear()
    share = (activations(small_learner(network=learner.network.backbone, lr=0.0), given) > 0).double().mean(0)
    assert rows[0]["channels/kept"] == 1 and "density/mean" not in rows[1]  # settled after the second epoch, then anew
    (mask,) = callback.masks.masks.values()
    density = rows[0]["density/mean"]
    assert 0.3 < density < 0.7 and mask.sum() == round(8 * density) and len(share) == 8
    state = callback.state_dict()
    again = ActivationDensity(at=["**"])
    small_learner(callbacks={"density": again})
    again.load_state_dict(state)
    assert torch.equal(again.masks.masks["1"], mask) and again.seen == []


def test_votes_and_densities_of_maps_are_of_their_means() -> None:
    for shape in ((2, 3, 4, 5), (2, 3, 4), (2, 3)):
        a = torch.randn(shape, generator=torch.Generator().manual_seed(0)).relu()
        votes, densities = MajorityVote().count(a), ActivationDensity().count(a)
        for b in range(2):
            means = [float(a[b, c].mean()) for c in range(3)]
            assert votes[b].tolist() == [mean > sum(means) / 3 for mean in means]
            torch.testing.assert_close(densities[b].float(), torch.stack([(a[b, c] > 0).float().mean() for c in range(3)]))


def test_channels_go_between_start_and_stop() -> None:
    callback, learner = MajorityVote(share=0.5, start=0.25, stop=0.5), small_learner()
    shares = {"1": torch.tensor([0.4, 0.6])}
    chosen = [callback.choose(Epoch(learner, epoch, 8), shares) for epoch in range(8)]
    assert [bool(one) for one in chosen] == [False, True, True, True, False, False, False, False]
    assert chosen[1]["1"].tolist() == [False, True]


def test_the_densest_stay() -> None:
    share, mask = torch.tensor([0.9, 0.1, 0.8, 0.7]), torch.tensor([0.0, 1, 1, 1])
    assert densest(share, mask, 0.67).tolist() == [0, 0, 1, 1]
    assert densest(share, mask, 0.0).tolist() == [0, 0, 1, 0]


def test_values_out_of_range() -> None:
    for make in (lambda: MajorityVote(start=0.5, stop=0.4), lambda: ActivationDensity(patience=0)):
        with pytest.raises(ValueError, match="got"):
            make()
    with pytest.raises(ValueError, match="no batch norm matches"):
        small_learner(callbacks={"density": ActivationDensity(at=["bn7"])})
