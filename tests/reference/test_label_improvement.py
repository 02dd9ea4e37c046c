"""Label improvement: what a relabelling changes, that rounds start afresh, and that labels get better."""

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from attnlab.algorithms.label_improvement import LabelImprovement
from attnlab.config.compose import compose
from attnlab.config.targets import ConfigError
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


def test_held_out_images_teach_nothing_keep_their_labels_and_count() -> None:
    algorithm, given = improvement(held_out=0.3)
    learner = small_learner(algorithm)
    held = algorithm.held_N
    assert held.sum() == 6
    terms, _ = algorithm.terms(learner, given, None)
    logits = learner.network.train()(given.x).logits
    assert terms["ce"].item() == pytest.approx(nn.functional.cross_entropy(logits[~held], given.y[~held]).item())
    alone = given._replace(x=given.x[held], y=given.y[held], index=given.index[held])
    assert algorithm.terms(learner, alone, None)[0]["ce"] == 0
    algorithm.relabel(learner, None)
    said = learner.network.eval()(given.x).logits.argmax(1)
    assert torch.equal(algorithm.labels_N, torch.where(held, given.y, said))
    assert algorithm.met[0].item() == pytest.approx((said == given.y)[held].double().mean().item())


@pytest.mark.parametrize(
    ("met", "ends"), [([0.5, 0.4, 0.3], True), ([0.5, 0.4, 0.4], False), ([0.3, 0.5, 0.4], False), ([0.5, 0.4], False)]
)
def test_training_ends_where_held_out_labels_are_met_less_than_in_both_rounds_before(
    met: list[float], ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    algorithm, given = improvement(rounds=[1] * 8, held_out=0.3)  # a round a step
    learner, stopped, trained = small_learner(algorithm), [], []
    monkeypatch.setattr(learner, "stop", lambda: stopped.append(True))
    relabel = algorithm.relabel

    def watched(*args: object) -> None:
        relabel(*args)
        algorithm.met[-1] = torch.tensor(met[len(algorithm.met) - 1])
        trained.append(copy.deepcopy(learner.network.state_dict()))

    monkeypatch.setattr(algorithm, "relabel", watched)
    take(learner, [given] * len(met))
    row: dict[str, float] = {}
    algorithm.on_epoch_end(learner, row)
    assert bool(stopped) is ends and row["labels/held_out_acc"] == pytest.approx(met[-1])
    same = [torch.equal(value, trained[-1][name]) for name, value in learner.network.state_dict().items()]
    assert all(same) is ends
    state = copy.deepcopy(algorithm.state_dict())
    algorithm.met = []
    algorithm.load_state_dict(state)
    assert [float(value) for value in algorithm.met] == pytest.approx(met)
    stopped.clear()
    algorithm.on_epoch_end(learner, row)  # no round has ended since
    assert not stopped


def test_whoever_needs_every_label_is_refused() -> None:
    words = ["data.limit=60", "algorithm=label_improvement", "algorithm.held_out=0.2"]
    with pytest.raises(ConfigError, match=r"algorithm\.held_out leaves images unlabelled, and regularizer=mixup reads every image's label"):
        compose([*words, "regularizer=mixup"])
    with pytest.raises(
        ConfigError, match=r"algorithm\.halves leaves images unlabelled, which loss LargeMarginLoss cannot take; use loss=ce"
    ):
        compose([*words[:2], "algorithm.halves=true", "loss=large_margin"])
    compose([*words[:2], "regularizer=mixup"])


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
    with pytest.raises(ValueError, match=r"held_out must be in \[0, 1\), and 0 with halves, got 0.2"):
        improvement(rounds=[1, 1, 1], halves=True, held_out=0.2)
    with pytest.raises(ConfigError, match=r"algorithm.held_out=0.01 of 20 training images leaves nothing to hold out or to learn"):
        small_learner(improvement(held_out=0.01)[0])
