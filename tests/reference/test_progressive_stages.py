"""Progressive stages: which images each epoch draws, how often, and that they are nested and in proportion."""

import pytest
import torch

from attnlab.callbacks.progressive_stages import ProgressiveStages


def test_every_epoch_draws_from_its_stage(run, monkeypatch: pytest.MonkeyPatch) -> None:
    from attnlab.data.loader import EpochLoader

    drawn: list[torch.Tensor] = []
    draw = EpochLoader.draw

    def watched(self: EpochLoader):
        order = draw(self)
        if self.shuffle:
            drawn.append(order.order_N)
        return order

    monkeypatch.setattr(EpochLoader, "draw", watched)
    words = ["callback=progressive_stages", "callback.progressive_stages.fractions=[0.25,0.5,1]", "schedule=constant"]
    found = run(*words, "trainer.max_epochs=6", "evaluator=none")
    assert found["epochs"] == 6 and len(drawn) == 6
    sizes = [len(order.unique()) for order in drawn]
    assert sizes == [16, 16, 32, 32, 64, 64] and all(len(order) == 64 for order in drawn)
    assert set(drawn[0].tolist()) == set(drawn[1].tolist()) < set(drawn[2].tolist())
    assert drawn[0].bincount().max() == 4 and not torch.equal(drawn[0], drawn[1])


def test_values_out_of_range() -> None:
    for fractions in ([], [0.5, 0.25], [0.0, 1.0], [0.5, 1.5]):
        with pytest.raises(ValueError, match="that do not fall"):
            ProgressiveStages(fractions=fractions)
