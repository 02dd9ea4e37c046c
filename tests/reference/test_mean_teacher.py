"""Mean teacher and local clustering against the authors' code; unlabelled images; the algorithm against an obvious loop."""

import copy
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from attnlab.algorithms.mean_teacher import MeanTeacher
from attnlab.config.compose import compose
from attnlab.config.targets import ConfigError
from attnlab.data.digits import Digits
from attnlab.losses.consistency import local_clustering, ramp_up, softmax_mse
from attnlab.losses.cross_entropy import CrossEntropy
from attnlab.network import Network, Output
from attnlab.training.epoch import Batch, EpochSums
from attnlab.training.learner import Learner
from attnlab.training.schedules import constant
from attnlab.training.settings import Settings
from tests.golden_numbers import golden


def same(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-13)


def test_consistency_equals_the_released_code() -> None:
    gold = golden("components", "mt_")
    logits = gold["zs"].requires_grad_()
    loss = softmax_mse(logits, gold["zt"])
    loss.backward()
    same(loss.detach(), gold["loss"])
    same(logits.grad, gold["gzs"])


def test_clustering_equals_the_released_code() -> None:
    gold = golden("components", "lc_")
    labelled, unlabelled = gold["fl"].requires_grad_(), gold["fu"].requires_grad_()
    mixed = torch.randperm(len(labelled) + len(unlabelled), generator=torch.Generator().manual_seed(0))
    features, known = torch.cat([labelled, unlabelled]), torch.arange(len(mixed)) < len(labelled)
    loss = local_clustering(features[mixed], known[mixed], radius=gold["eps"].item())
    loss.backward()
    same(loss.detach(), gold["loss"])
    same(labelled.grad, gold["gfl"])
    same(unlabelled.grad, gold["gfu"])
    for all_of_one_kind in (torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.bool)):
        assert local_clustering(torch.randn(5, 3), all_of_one_kind, radius=1e-9).isfinite()


def test_half_precision_is_summed_in_full() -> None:
    z, other = torch.randn(2, 60, 12, generator=torch.Generator().manual_seed(0)).bfloat16()
    known = torch.arange(60) < 8
    for term in (lambda x: softmax_mse(x, other.to(x.dtype)), lambda x: local_clustering(x, known, radius=2.0)):
        assert torch.equal(term(z), term(z.float()))


def test_ramp_equals_the_released_code() -> None:
    gold = golden("components", "rampup_")
    same(ramp_up(gold["epochs"].double(), 5), gold["T5"])
    assert ramp_up(torch.tensor(0.1), 0) == 1


def test_the_loss_is_of_the_labelled_images() -> None:
    logits, y = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, -1, 3, -1, 1, -1])
    for smoothing in (0.0, 0.2):
        loss = CrossEntropy(4, 1, label_smoothing=smoothing)
        whole, part = (loss(Output(z, None, None), t)["ce"] for z, t in ((logits, y), (logits[y >= 0], y[y >= 0])))
        same(whole, part)


def test_a_stratified_choice_of_labels_is_known() -> None:
    data = Digits(limit=100, labels=20, batch_size=50)
    data.prepare()
    truth = data.split("train").labels
    loader = data.train_loader("cpu")
    loader.with_index = True
    seen = {}
    for _, y, index in loader:
        seen |= dict(zip(index.tolist(), y.tolist()))
    known = {index: y for index, y in seen.items() if y >= 0}
    assert len(seen) == 100 and len(known) == 20 and all(truth[index] == y for index, y in known.items())
    assert sorted(known.values()) == sorted(list(range(10)) * 2)
    with pytest.raises(ValueError, match="labels=200 is more than the 100 training images"):
        Digits(limit=100, labels=200).train_labels()


def test_two_steps_are_the_loop() -> None:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 3)).double()
    student, teacher = copy.deepcopy(backbone), copy.deepcopy(backbone)
    algorithm = MeanTeacher(4, 8, decay=0.9, weight=3.0, ramp=2.0, noise=0.0)
    learner = Learner(
        Network(backbone, shape=(5,)),
        CrossEntropy(3, 1),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        schedule=constant,
        settings=Settings(accelerator="cpu", precision=32, max_epochs=2),
        algorithm=algorithm,
    )
    learner.steps_per_epoch = 4
    learner.configure_optimizers()
    learner.prepare()
    learner.train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for t in range(3):
        x, y = torch.randn(6, 5, dtype=torch.float64), torch.tensor([0, -1, 2, 1, -1, -1]) if t else torch.full((6,), -1)
        learner.totals.steps = t
        learner.step(Batch(x, y), EpochSums(steps=t))
        logits = student(x)
        loss = 3 * ramp_up(torch.tensor(t / 4), 2) * softmax_mse(logits, teacher(x).detach())
        if t:
            loss = loss + nn.functional.cross_entropy(logits[y >= 0], y[y >= 0])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay = min(0.9, 1 - 1 / (t + 2))
        with torch.no_grad():
            for average, weight in zip(teacher.parameters(), student.parameters()):
                average.mul_(decay).add_(weight, alpha=1 - decay)
    for network, expected in ((learner.network, student), (learner.tested(), teacher)):
        for name, value in network.backbone.state_dict().items():
            torch.testing.assert_close(value, expected.state_dict()[name], rtol=1e-6, atol=1e-8)
    assert not torch.equal(teacher[1].running_mean, student[1].running_mean)


def test_the_accuracy_is_of_the_labelled_images(run) -> None:
    words = ["algorithm=lc_mt", "data.labels=8", "algorithm.clustering=0.01", "algorithm.clustering_start=0", "algorithm.weight=1"]
    found = run(*words, "trainer.max_epochs=10")
    metrics = found["metrics"]
    assert metrics["train/labelled"] == pytest.approx(8 / 64)
    assert metrics["train/loss/consistency"] > 0 and metrics["train/loss/clustering"] > 0
    assert 8 / 64 < metrics["train/acc"] <= 1


def test_who_cannot_use_them_says_so(run) -> None:
    few = ["data.labels=20", "model.width=4", "logger=none"]
    with pytest.raises(ConfigError, match=r"algorithm Supervised cannot use; use algorithm=mean_teacher, or data\.limit=20"):
        compose(few)
    with pytest.raises(ConfigError, match="loss LargeMarginLoss cannot take; use loss=ce"):
        compose([*few, "algorithm=mean_teacher", "loss=large_margin"])
    with pytest.raises(ConfigError, match="regularizer=mixup reads every image's label"):
        compose([*few, "algorithm=mean_teacher", "regularizer=mixup"])
    with pytest.raises(ConfigError, match="distillation=dkd reads every image's label"):
        compose([*few, "algorithm=mean_teacher", "distillation=dkd", "teacher=training:3fa9c1d2"])
    with pytest.raises(ConfigError, match="mixup mixes the student's images"):  # labelled ones, too
        run("algorithm=mean_teacher", "regularizer=mixup", "check=true")
    with pytest.raises(ValueError, match="decay must be in"):
        MeanTeacher(decay=1.0)
