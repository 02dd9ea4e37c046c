"""Label improvement: what a relabelling changes, that rounds start afresh, and that labels get better."""

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attnlab.algorithms.label_improvement import LabelImprovement
from tests.reference.small_learner import backbone, batches, small_learner, take


def improvement(**options) -> tuple[LabelImprovement, list]:
    given = batches(1, size=20)[0]
    return LabelImprovement(lambda device: [(given.x[:12], given.y[:12]), (given.x[12:], given.y[12:])], **options), given


def test_after_a_round_the_networks_labels_replace_those_given() -> None:
    algorithm, given = improvement(rounds=[1, 1], confidence=0.4)
    network = backbone()
    start = copy.deepcopy(network.state_dict())
    learner = small_learner(algorithm, network=network, momentum=0.9)
    assert algorithm.ends == (4,) and torch.equal(algorithm.labels_N, given.y)
    take(learner, [given] * 3)
    p = learner.network.eval()(given.x).logits.softmax(1)
    learner.network.train()
    learner.totals.steps = 3
    learner.step(given, learner.totals)
    assert (p.max(1).values > 0.4).any()
    assert all(torch.equal(value, start[name]) for name, value in learner.network.backbone.state_dict().items())
    assert not learner.optimizer.state
    changed = algorithm.labels_N != given.y
    row: dict[str, float] = {}
    algorithm.on_epoch_end(learner, row)
    assert row["labels/changed"] == pytest.approx(changed.double().mean().item())
    state = copy.deepcopy(algorithm.state_dict())
    algorithm.labels_N.zero_()
    algorithm.load_state_dict(state)
    assert torch.equal(algorithm.labels_N != given.y, changed)


@pytest.mark.parametrize("confidence", [0.0, 0.6, 1.0])
def test_relabel_is_the_loop(confidence: float) -> None:
    algorithm, given = improvement(confidence=confidence)
    learner = small_learner(algorithm)
    algorithm.relabel(learner, None)
    p = learner.network.eval()(given.x).logits.softmax(1)
    expected = [int(row.argmax()) if row.max() > confidence else int(y) for row, y in zip(p, given.y)]
    assert algorithm.labels_N.tolist() == expected and learner.network.training is False
    if confidence == 1:
        assert torch.equal(algorithm.labels_N, given.y)


def test_several_processes_have_the_labels_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    algorithm, _ = improvement()
    learner = small_learner(algorithm)
    monkeypatch.setattr(torch.distributed, "broadcast", lambda labels, source: labels.fill_(source + 2))
    learner.settings = SimpleNamespace(world_size=2, autocast=nullcontext)
    algorithm.relabel(learner, None)
    assert (algorithm.labels_N == 2).all()


def test_halves_learn_from_one_and_relabel_the_other() -> None:
    algorithm, given = improvement(rounds=[1, 1, 2], halves=True)
    learner = small_learner(algorithm)
    assert [algorithm.part(step) for step in (0, 1, 2, 3, 4, 7)] == [False, False, True, True, None, None]
    algorithm.half = False
    terms, _ = algorithm.terms(learner, given, None)
    even = small_learner(network=learner.network.backbone)
    rows = torch.arange(20)[::2]
    logits = even.network.train()(given.x).logits
    assert terms["ce"].item() == pytest.approx(nn.functional.cross_entropy(logits[rows], given.y[rows]).item())
    algorithm.relabel(learner, False)
    assert torch.equal(algorithm.labels_N[::2], given.y[::2])
    algorithm.labels_N.copy_(given.y)
    algorithm.relabel(learner, True)
    assert torch.equal(algorithm.labels_N[1::2], given.y[1::2])


def test_wrong_labels_get_fewer(run) -> None:
    words = ["data=two_moons", "model=mlp2d", "data.num_train=200", "data.label_noise=0.2", "trainer.max_epochs=12", "model.width=16"]
    words += ["algorithm=label_improvement", "algorithm.rounds=[1,1]", "schedule=cycles", "schedule.lengths=[1,1]"]
    base = ["logger=none", "data.batch_size=20", "ood=none", "evaluator=none", "trainer.accelerator=cpu", "trainer.precision=32"]
    found = run(*words, base=base)
    state = torch.load(found["folder"] / "last.ckpt", weights_only=True)["attnlab"]["states"]["algorithm"]
    from attnlab.pipeline.factory import make_data

    data = make_data(found["plan"])
    noisy, true = data.split("train").labels, data.true_labels_N
    assert (noisy != true).double().mean() == 0.2
    assert (state["labels"] != true).double().mean() < 0.15


def test_values_out_of_range() -> None:
    with pytest.raises(ValueError, match="rounds must be 3 or more lengths"):
        improvement(rounds=[1, 1], halves=True)
