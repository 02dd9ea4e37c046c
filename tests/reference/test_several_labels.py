"""Several classes an image: metrics against scikit-learn, the task, the loss, joint energy, the digits, and what is refused in one line."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, log_loss

from attnlab.config.compose import compose
from attnlab.config.targets import ConfigError
from attnlab.data.multi_digits import MultiDigits
from attnlab.data.task import OneLabel, SeveralLabels
from attnlab.losses.sigmoid import SigmoidLoss
from attnlab.metrics import classification_metrics, multilabel_metrics
from attnlab.network import Output
from attnlab.ood.joint_energy import JointEnergy
from attnlab.pipeline.factory import make_data, make_learner
from attnlab.training.epoch import Batch
from tests.conftest import TINY

SEVERAL = [*TINY, "data=multi_digits", "data.num_train=100", "data.num_test=40", "data.cell=8", "loss=sigmoid"]
SETS = torch.tensor([[True, False, False, False], [False, True, True, False], [False, False, False, False]])


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(30, 4, generator=generator, dtype=torch.float64)
    targets = (torch.rand(30, 4, generator=generator) < 0.3).long()
    targets[:, 3] = 0  # a class that never occurs
    return logits, targets


def test_metrics_are_scikit_learns() -> None:
    logits, targets = drawn()
    named, there = (logits >= 0).numpy(), targets.numpy()
    found = multilabel_metrics(logits, targets)
    assert found["acc"] == np.mean([(a == b).all() for a, b in zip(named, there)])
    assert found["map"] == pytest.approx(np.mean([average_precision_score(there[:, k], logits[:, k]) for k in range(3)]), rel=1e-12)
    assert found["f1_macro"] == pytest.approx(f1_score(there, named, average="macro", zero_division=0), rel=1e-12)
    assert found["f1_micro"] == pytest.approx(f1_score(there, named, average="micro"), rel=1e-12)
    p = logits.sigmoid().numpy()
    nll = sum(log_loss(there[:, k], p[:, k], labels=[0, 1]) for k in range(4))
    assert found["nll"] == pytest.approx(nll, rel=1e-12)
    sure = multilabel_metrics(100.0 * (2 * targets - 1), targets)
    assert (sure["acc"], sure["map"], sure["f1_micro"], sure["ece"]) == (1, 1, 1, 0) and sure["f1_macro"] == 0.75


def test_what_cannot_be_measured() -> None:
    logits, targets = drawn()
    for bad, message in (((logits, targets[:, :3]), "must be"), ((logits, targets + 1), "0 or 1"), ((logits * math.nan, targets), "NaN")):
        with pytest.raises(ValueError, match=message):
            multilabel_metrics(*bad)


def test_the_task_of_one_label_is_what_it_was() -> None:
    logits, labels = drawn()[0], torch.arange(30) % 4
    task = OneLabel()
    assert task.targets(labels) is labels and task.decisions(logits, labels)[0] is logits
    assert torch.equal(task.right(logits, labels), logits.argmax(1) == labels)
    assert task.metrics(logits, labels) == classification_metrics(logits, labels)
    assert task.names(torch.tensor([1, 0]), "ab") == ["b", "a"] and task.guesses(torch.tensor([[0.0, 1.0]]), "ab") == ["b"]


def test_the_task_of_several_labels() -> None:
    task, labels = SeveralLabels(SETS), torch.tensor([1, 0, 2])
    assert task.targets(labels).tolist() == [[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    logits = torch.tensor([[-1.0, 2, 0, -3], [1.0, -1, 1, -1], [-1.0, -1, -1, -1]])
    assert task.right(logits, task.targets(labels)).tolist() == [True, False, True]
    assert task.guesses(logits, "abcd") == ["b+c", "a+c", "none"] and task.names(labels, "abcd") == ["b+c", "a", "none"]
    choices, right = task.decisions(logits, labels)
    torch.testing.assert_close(choices.softmax(1)[:, 1], logits.flatten().sigmoid())
    assert right.tolist() == task.targets(labels).flatten().tolist()


def test_the_loss_is_that_of_every_class() -> None:
    logits, targets = drawn()
    loss = SigmoidLoss(4, 1)(Output(logits, None, None), targets.float())["bce"]
    assert loss.item() == pytest.approx(multilabel_metrics(logits, targets)["nll"], rel=1e-12)


def test_joint_energy_is_the_sum_of_every_class() -> None:
    logits, _ = drawn()
    expected = [-sum(math.log1p(math.exp(z)) for z in row) for row in logits.tolist()]
    torch.testing.assert_close(JointEnergy().fit(logits).score(logits), torch.tensor(expected, dtype=torch.float64))
    assert (JointEnergy().score(torch.zeros(2, 5)) == JointEnergy().score(torch.zeros(2, 5))[0]).all()


def test_canvases_hold_the_digits_of_their_labels() -> None:
    data = MultiDigits(num_train=300, num_test=100, cell=8, most=3)
    train, again = data.image_set("train"), MultiDigits(num_train=300, num_test=100, cell=8, most=3).image_set("train")
    assert torch.equal(train.images, again.images) and torch.equal(train.labels, again.labels) and train.shape == (1, 16, 16)
    counts = data.task.targets(train.labels).sum(1)
    filled = (train.images[:, 0].view(-1, 2, 8, 2, 8).amax((2, 4)) > 0).flatten(1).sum(1)
    assert torch.equal(filled, counts.long()) and set(counts.tolist()) == {1, 2, 3}
    assert data.task.targets(train.labels).sum(0).min() > 30  # every class about as often
    assert data.num_labels == 10 + 45 + 120 and data.num_classes == 10
    single = MultiDigits(num_train=200, num_test=50, cell=8, most=1)
    assert torch.equal(single.task.targets(single.image_set("train").labels).sum(1), torch.ones(200))


def test_one_digit_a_canvas_is_the_digit_of_its_class() -> None:
    from attnlab.data.digits import digit_images

    data = MultiDigits(num_train=60, num_test=20, cell=8, most=1)
    train, (images, labels) = data.image_set("train"), digit_images(8)
    for canvas, label in zip(train.images[:, 0], train.labels):
        cell = max((canvas[y : y + 8, x : x + 8] for y in (0, 8) for x in (0, 8)), key=lambda part: int(part.sum()))
        assert any(torch.equal(cell, glyph) for glyph in images[labels == label, 0])


def test_a_step_learns_the_sets() -> None:
    plan = compose([*SEVERAL, "regularizer=none"])
    data = make_data(plan)
    learner = make_learner(plan, data)
    learner.train()
    learner.configure_optimizers()
    learner.prepare()
    x, y = next(iter(data.train_loader("cpu")))
    before = learner.output(x, data.task.targets(y))
    terms = learner.terms(before, Batch(x, data.task.targets(y)))
    for _ in range(12):
        learner.step(Batch(x, y), learner.totals)
    assert learner.terms(learner.output(x, data.task.targets(y)), Batch(x, y))["bce"] < 0.8 * terms["bce"]


def test_a_run_has_the_metrics_of_the_task(run) -> None:
    found = run("ood=[joint_energy,mahalanobis]", "evaluator=[ood,figures]", "data.val=0.25", "trainer.max_epochs=1", base=SEVERAL)
    assert {"test/acc", "test/map", "test/f1_macro", "val/map", "ood/joint_energy/photos/auroc"} <= set(found["metrics"])
    assert "test/brier" not in found["metrics"] and (found["folder"] / "figures" / "reliability.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["loss=ce"], "loss CrossEntropy cannot take; use loss=sigmoid"),
        (["evaluator=[calibration]"], "evaluator=calibration looks at one; use evaluator"),
        (["attention=abn"], "attention=abn looks at one"),
        (["algorithm=mltp"], "algorithm MLTP looks at one; use algorithm=supervised"),
        (["data.per_class=3"], "data.per_class is of sets with one"),
        (["callback=mc_dropout"], "callback=mc_dropout looks at one"),
    ],
)
def test_what_looks_at_one_class_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose([*SEVERAL, "evaluator=[ood]", *words])


@pytest.mark.parametrize("options", [{"most": 5}, {"most": 0}, {"cell": 7}, {"num_train": 5}])
def test_refusals(options: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        MultiDigits(**options)
