"""SAM and ASAM against numbers of the authors' PyTorch port, and what a second pass must not change."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from attnlab.algorithms.sam import SAM
from attnlab.algorithms.supervised import Supervised
from attnlab.config.compose import compose
from attnlab.config.targets import ConfigError
from attnlab.losses.cross_entropy import CrossEntropy
from attnlab.network import Network
from attnlab.training.epoch import Batch, EpochSums
from attnlab.training.learner import Learner
from attnlab.training.schedules import constant
from attnlab.training.settings import Settings
from tests.golden_numbers import golden

NAMES = {"w1": "0.weight", "b1": "0.bias", "w2": "2.weight", "b2": "2.bias"}


def learner_of(backbone: nn.Module, algorithm: Supervised, *, shape: tuple[int, ...] = (5,), lr: float = 0.1, **options: float) -> Learner:
    learner = Learner(
        Network(backbone, shape=shape),
        CrossEntropy(3, 1),
        optimizer=partial(torch.optim.SGD, lr=lr, **options),
        schedule=constant,
        settings=Settings(accelerator="cpu", precision=32),
        algorithm=algorithm,
    )
    learner.configure_optimizers()
    learner.prepare()
    return learner


@pytest.mark.parametrize("kind", ["plain", "adaptive"])
def test_two_steps_equal_the_port(kind: str) -> None:
    gold = golden("components", "sam_")
    lr, momentum, decay = gold["hparams"].tolist()
    backbone = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    backbone.load_state_dict({NAMES[name]: gold[name] for name in NAMES})
    algorithm = SAM(rho=gold[f"{kind}_rho"].item(), adaptive=kind == "adaptive")
    learner = learner_of(backbone, algorithm, lr=lr, momentum=momentum, weight_decay=decay)
    passes: list[tuple[float, dict[str, Tensor]]] = []
    objective = learner.objective

    def watched(batch: Batch, teacher: None) -> tuple:
        found = objective(batch, teacher)
        passes.append((found[0].item(), {name: value.clone() for name, value in backbone.state_dict().items()}))
        return found

    learner.objective = watched
    for t in range(2):
        totals = EpochSums(steps=t)
        learner.step(Batch(gold["x"], gold["y"]), totals)
        (loss, _), (climbed_loss, climbed) = passes[-2:]
        assert loss == pytest.approx(gold[f"{kind}_loss{t}"].item(), rel=1e-6) and totals.sums.item() == pytest.approx(loss, rel=1e-6)
        assert climbed_loss == pytest.approx(gold[f"{kind}_loss_up{t}"].item(), rel=1e-6)
        for name, key in NAMES.items():
            torch.testing.assert_close(climbed[key], gold[f"{kind}_{name}_up{t}"], rtol=1e-9, atol=1e-12)
            torch.testing.assert_close(backbone.state_dict()[key], gold[f"{kind}_{name}_{t}"], rtol=1e-9, atol=1e-12)


def test_the_second_pass_repeats_the_draws_and_leaves_statistics() -> None:
    """With a radius of nothing SAM is SGD, dropout and batch norm included."""

    def net() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 3))

    x, y = torch.randn(12, 5), torch.arange(12) % 3
    after = []
    for algorithm in (Supervised(), SAM(rho=1e-12)):
        learner = learner_of(net(), algorithm).train()
        torch.manual_seed(1)
        for step in range(3):
            learner.step(Batch(x, y), EpochSums(steps=step))
        after.append({name: value.clone() for name, value in learner.network.state_dict().items()})
        after.append(torch.rand(3))  # where the generator stands
    plain, draw, sam, sam_draw = after
    assert torch.equal(draw, sam_draw)
    for name, value in plain.items():
        torch.testing.assert_close(sam[name], value, rtol=1e-5, atol=1e-6)


def test_a_scaled_gradient_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from attnlab.pipeline.dry_run import dry_run

    words = ["algorithm=sam", "trainer.precision=16-mixed", "trainer.accelerator=cpu", "model.width=4", "logger=none"]
    with pytest.raises(ConfigError, match=r"SAM takes 2 backward passes a step, which 16-mixed cannot scale; use trainer\.precision=bf16"):
        dry_run(compose(words))
    with pytest.raises(ConfigError, match=r"algorithm: rho must be above 0, got 0"):
        dry_run(compose(["algorithm=sam", "algorithm.rho=0", "model.width=4", "logger=none"]))


def test_what_trains_is_what_is_tested() -> None:
    algorithm, network = Supervised(), nn.Identity()
    algorithm.setup(SimpleNamespace(network=network))
    assert algorithm.tested() is network
