"""Joint ensembles: one step of the released FoRDE code, packed members against the loop, what is tested, what is refused."""

from collections import OrderedDict
from functools import partial

import pytest
import torch
from torch import nn

from attnlab.algorithms import joint_ensemble
from attnlab.algorithms.joint_ensemble import JointEnsemble
from attnlab.algorithms.packing import packed_outputs
from attnlab.config.targets import ConfigError
from attnlab.ensemble import Ensemble
from attnlab.ensemble.concatenation import Concatenation
from attnlab.losses.cross_entropy import CrossEntropy
from attnlab.losses.forde import principal_axes
from attnlab.network import Network
from attnlab.training.epoch import Batch, EpochSums
from attnlab.training.learner import Learner
from attnlab.training.schedules import constant
from attnlab.training.settings import Settings
from tests.golden_numbers import golden


def small(*, norm: bool = False) -> Network:
    middle = [nn.BatchNorm1d(7)] if norm else []
    return Network(nn.Sequential(nn.Linear(8, 7), *middle, nn.Tanh(), nn.Linear(7, 4)).double(), shape=(8,))


def with_features() -> Network:
    return Network(nn.Sequential(OrderedDict(features=nn.Linear(5, 4), fc=nn.Linear(4, 3))), shape=(5,))


def learner_of(algorithm: JointEnsemble, network: Network, **options) -> Learner:
    learner = Learner(
        network,
        CrossEntropy(4, 1),
        optimizer=partial(torch.optim.SGD, **{"lr": 0.1, **options}),
        schedule=constant,
        settings=Settings(accelerator="cpu", precision=32, max_epochs=2),
        algorithm=algorithm,
    )
    learner.steps_per_epoch = 4
    learner.configure_optimizers()
    learner.prepare()
    return learner.train()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("variant", ["identity", "pca"])
def test_a_step_is_the_released_codes(variant: str, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    gold, seen, repulsion = golden("components", "forde_"), [], joint_ensemble.input_gradient_repulsion
    monkeypatch.setattr(joint_ensemble, "input_gradient_repulsion", lambda g, **given: seen.append(given["eps"]) or repulsion(g, **given))
    decay, lr, momentum = gold["wd_lr_mom"].tolist()
    algorithm = JointEnsemble(small, list, members=len(gold["w1"]), pca=0.0, packed=packed)
    learner = learner_of(algorithm, small(), lr=lr, momentum=momentum, nesterov=True, weight_decay=decay)
    if variant == "pca":
        algorithm.space = {"basis_DD": gold["eigvec"], "scale_D": gold["sqrt_eigval"]}
    for m, network in enumerate(algorithm.networks):
        for layer, names in ((network.backbone[0], ("w1", "b1")), (network.backbone[2], ("w2", "b2"))):
            layer.weight.data, layer.bias.data = gold[names[0]][m].clone(), gold[names[1]][m].clone()
    totals = EpochSums()
    learner.step(Batch(gold["x"], gold["y"]), totals)
    assert totals.names == ("ce", "repulsion") and seen == [1e-12 if variant == "identity" else 1e-24]
    found = dict(zip(totals.names, totals.sums.tolist()))
    assert found["repulsion"] == pytest.approx(gold[f"{variant}_repulsion"].item(), rel=1e-6)  # terms are summed up in fp32
    assert found["ce"] == pytest.approx(gold[f"{variant}_ce_sum"].item(), rel=1e-6)
    for m, network in enumerate(algorithm.networks):
        for layer, names in ((network.backbone[0], ("w1", "b1")), (network.backbone[2], ("w2", "b2"))):
            for value, name in ((layer.weight, names[0]), (layer.bias, names[1])):
                torch.testing.assert_close(value.detach(), gold[f"{variant}_new_{name}"][m], rtol=1e-10, atol=1e-12)


def test_packed_members_are_the_loop() -> None:
    learners = []
    for packed in (False, True):
        torch.manual_seed(0)
        algorithm = JointEnsemble(partial(small, norm=True), list, members=3, pca=0.0, packed=packed)
        learners.append(learner_of(algorithm, small(norm=True)))
    for step in range(3):
        torch.manual_seed(step)
        batch = Batch(torch.randn(6, 8, dtype=torch.float64), torch.randint(4, (6,)))
        for learner in learners:
            learner.step(batch, EpochSums(steps=step))
    one, other = (learner.state_dict() for learner in learners)
    assert any("peers.1" in name and "running_mean" in name for name in one)
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-6, atol=1e-9)


def test_packed_outputs_have_each_members_features() -> None:
    torch.manual_seed(0)
    networks, images = [with_features() for _ in range(2)], torch.randn(2, 6, 5)
    for out, network, x in zip(packed_outputs(networks, list(images), torch.zeros(6)), networks, images, strict=True):
        torch.testing.assert_close((out.logits, out.features), (network(x).logits, network(x).features))


def test_members_are_joined_by_probabilities_or_features() -> None:
    algorithm = JointEnsemble(small, list, members=2, pca=0.0)
    learner_of(algorithm, small())
    assert type(algorithm.tested()) is Ensemble
    algorithm.join, algorithm.networks = "features", nn.ModuleList(with_features() for _ in range(2))
    assert type(algorithm.tested()) is Concatenation


def test_principal_axes() -> None:
    images = torch.randn(50, 1, 2, 3) * torch.arange(1, 7).view(1, 1, 2, 3)
    axes_DD, variance_D = principal_axes(images.split(8))
    covariance = images.flatten(1).double().T.cov(correction=0)
    torch.testing.assert_close(axes_DD @ variance_D.diag() @ axes_DD.mT, covariance, rtol=1e-10, atol=1e-10)
    assert (variance_D.diff() <= 0).all()


def test_the_members_are_tested_together(run) -> None:
    words = ["algorithm=joint_ensemble", "algorithm.members=2", "ood=[mutual_information]", "trainer.max_epochs=1"]
    found = run(*words, "algorithm.repulsion=none")
    assert found["parameters"] == 2 * run("trainer.max_epochs=1")["parameters"]
    assert 0 <= found["metrics"]["ood/mutual_information/photos/auroc"] <= 1


@pytest.mark.parametrize(
    "words, message",
    [
        (["regularizer=mixup"], "mixup mixes labels, and repulsion=forde needs true classes"),
        (["callback=ema"], "callback=ema knows of one network"),
        (["loss=large_margin", "model.bottleneck=8"], "loss LargeMarginLoss keeps a state"),
        (["attention=se", "algorithm.packed=true"], r"packed=true runs plain networks only, and there is se@"),
        (["algorithm.members=1"], "members must be at least 2"),
    ],
)
def test_what_is_refused(words: list[str], message: str, run) -> None:
    with pytest.raises(ConfigError, match=message):
        run("algorithm=joint_ensemble", *words, "check=true")
