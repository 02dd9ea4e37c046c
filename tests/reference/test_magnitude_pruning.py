"""Magnitude pruning: exact counts over all layers, rounds, rewinding, and that zeros stay."""

import copy

import pytest
import torch

from attnlab.callbacks.magnitude_pruning import MagnitudePruning, largest
from tests.reference.small_learner import batches, small_learner, take


def test_the_largest_of_all_layers_together() -> None:
    torch.manual_seed(0)
    weights, masks = [torch.randn(4, 5), torch.randn(3)], [torch.ones(4, 5), torch.ones(3)]
    for share in (0.8, 0.5, 0.1):
        new = largest(weights, masks, share=share)
        size = torch.cat([weight.flatten() for weight in weights]).abs()
        kept = torch.cat([mask.flatten() for mask in new]) > 0
        assert kept.sum() == round(share * 23) and size[kept].min() > size[~kept].max()
        assert all((mask <= old).all() for mask, old in zip(new, masks))
        masks = new


@pytest.mark.parametrize("rewind", [0.0, 0.5, None])
def test_rounds(rewind: float | None) -> None:
    callback = MagnitudePruning(lengths=[1, 0.5, 0.5], rate=0.5, rewind=rewind)
    learner = small_learner(callbacks={"imp": callback}, epochs=2, momentum=0.9)
    start = [weight.detach().clone() for weight in learner.network.parameters()]
    given = batches(8)
    assert callback.ends == (4, 6)
    past = start
    for step, batch in enumerate(given, start=1):
        learner.step(batch, learner.totals)
        before = [weight.detach().clone() for weight in learner.network.parameters()]
        learner.after_step(step)
        if step == 2 and rewind == 0.5:
            past = before
        if step in callback.ends:
            assert not learner.optimizer.state
            kept = sum(int(mask.sum()) for mask in callback.masks)
            assert kept == round(0.5 ** (1 + callback.ends.index(step)) * (5 * 8 + 8 * 3))
            for weight, target in zip(learner.network.parameters(), before if rewind is None else past):
                mask = next((m for m, w in zip(callback.masks, callback.weights) if w is weight), torch.ones_like(weight))
                assert torch.equal(weight, target * mask)
    assert sum(int((weight == 0).sum()) for weight in callback.weights) == 64 - 16


def test_state_comes_back() -> None:
    callback = MagnitudePruning(lengths=[1, 1], rewind=0.5)
    learner = small_learner(callbacks={"imp": callback})
    take(learner, batches(5))
    state, masks = copy.deepcopy(callback.state_dict()), [mask.clone() for mask in callback.masks]
    other = MagnitudePruning(lengths=[1, 1], rewind=0.5)
    small_learner(callbacks={"imp": other})
    other.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(other.masks, masks, strict=True)) and len(other.past) == len(callback.past) > 0
    assert all(torch.equal(a, b) for a, b in zip(other.past, callback.past, strict=True))
    row: dict[str, float] = {}
    other.on_epoch_end(learner, row)
    assert row == {"weights/kept": sum(mask.sum().item() for mask in masks) / sum(mask.numel() for mask in masks)}


def test_values_out_of_range() -> None:
    for options, message in (({"lengths": [1]}, "two rounds or more"), ({"rewind": 1.0}, "fraction of the first round")):
        with pytest.raises(ValueError, match=message):
            MagnitudePruning(**options)
    with pytest.raises(ValueError, match="no layer matches 'conv9'"):
        small_learner(callbacks={"imp": MagnitudePruning(at="conv9")})
